"""The core: groups, densities, kernels, layers and measurement. It knows no domain."""
