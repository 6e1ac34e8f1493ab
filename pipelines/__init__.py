"""The pipelines: command line, run directory, train, evaluate, export and report."""
