from dataclasses import dataclass
from parteq.pipelines.command import Command


@dataclass(kw_only=True)
class Demo(Command):
    """Demo."""

    def run(self):
        return {}
