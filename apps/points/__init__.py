"""Point clouds and molecules: networks, tasks and metrics."""
