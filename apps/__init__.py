"""The applications, one folder each: its models, its task, its metrics."""
