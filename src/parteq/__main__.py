"""The command `parteq`, also as `python -m parteq`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> int:
    """Run the command line in `sys.argv` and return its exit status."""
    # Imported late, so that importing this module stays light.
    from parteq.pipelines.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
