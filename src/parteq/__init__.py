"""parteq: networks as equivariant as their data are, and able to say how much that is.

Importing this package loads nothing heavy; import what is needed from `parteq.core`, `parteq.datasets`,
`parteq.apps` or `parteq.pipelines`.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
