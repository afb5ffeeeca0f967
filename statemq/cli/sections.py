"""The commands of ``--help`` in sections, as plain text: the boxes of rich take longer to load than all else together."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class Sections(TyperGroup):
    """A group that lists its commands under the names of their panels."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                section = getattr(command, "rich_help_panel", None)
                rows = sections.setdefault(section if isinstance(section, str) else "Commands", [])
                rows.append((name, command.get_short_help_str(limit=200)))
        for section, rows in sections.items():
            with formatter.section(section):
                formatter.write_dl(rows)
