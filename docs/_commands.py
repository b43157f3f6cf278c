"""The directive ``commands``: the help of every ``ekmfast`` command, from its own parser."""

from __future__ import annotations

import argparse
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ekmfast.cli.commands import COMMANDS


class Commands(SphinxDirective):
    """A section for each command: what it does, its usage, and its options."""

    def run(self) -> list[nodes.Node]:
        return [self._section(name, *entry) for name, entry in COMMANDS.items()]

    def _section(self, name: str, command: Any, line: str) -> nodes.section:
        parser = argparse.ArgumentParser(
            prog=f"ekmfast {name}",
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, width=80),
        )
        command.add_arguments(parser)
        section = nodes.section("", nodes.title("", f"ekmfast {name}"), ids=[f"command-{name}"])
        section += nodes.paragraph("", line[0].upper() + line[1:] + ".")
        section += nodes.literal_block("", parser.format_help(), language="text")
        return section


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
