"""Point clouds: readers, writers, simulators and the geometry that needs no network."""
