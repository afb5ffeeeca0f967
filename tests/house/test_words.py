"""What people are told is said in plain words: none that only this project's own documents explain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2] / "statemq"

OWN = re.compile(
    r"\bit goes on\b|\bis like that\b"
    r"|(?<!dead )\bletters\b(?!, digits)|(?<!dead )\b(the|this|which|a) letter\b(?! or \"_\")",
    re.IGNORECASE,
)
"""Instead: it still waits or runs, it continues; what it is; dead letter, failed command."""

SHOWN_BY_HELP = ("act", "ask", "check", "dev", "run", "see", "start")


def said(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module that are no docstrings; of a command of the command line also those, which are its help."""
    tree = ast.parse(path.read_text())
    hidden: set[int] = set()
    for node in ast.walk(tree):
        for one in getattr(node, "body", None) or [] if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant):
                command = path.parent.name == "cli" and path.stem in SHOWN_BY_HELP and isinstance(node, ast.FunctionDef)
                if not (command and one is node.body[0] and not node.name.startswith("_")):  # type: ignore[attr-defined]
                    hidden.add(id(one.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in hidden:
            yield node.lineno, node.value


def test_messages_use_plain_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.strip()[:100]}"
        for path in sorted(ROOT.rglob("*.py"))
        for line, text in said(path)
        if OWN.search(text)
    ]
    assert not found, f"say it in plain words (still waits or runs, continues, dead letter, failed command): {found}"
