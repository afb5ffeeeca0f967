"""Words that are plain are taken without asking typer: whatever is given, what comes of it is what typer makes of it."""

from __future__ import annotations

import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command

from statemq.cli import options
from statemq.cli.app import _command, app
from statemq.cli.plain import quicken
from statemq.errors import StatemqError

ROOT = Path(__file__).parents[2]


class Colour(StrEnum):
    red = "red"
    blue = "blue"


def taken(
    name: Annotated[str, typer.Argument()],
    rest: Annotated[list[str] | None, typer.Argument()] = None,
    many: Annotated[int, typer.Option(min=1, max=9)] = 5,
    few: Annotated[int | None, typer.Option(min=-2)] = None,
    colour: Annotated[Colour, typer.Option()] = Colour.red,
    timeout: options.Timeout = None,
    half: Annotated[float, typer.Option()] = 0.5,
    loud: Annotated[bool, typer.Option("--loud/--soft")] = False,
    where: Annotated[Path, typer.Option()] = Path("here"),
    numbers: Annotated[list[int] | None, typer.Option()] = None,
) -> str:
    return repr((name, rest, many, few, colour, timeout, half, loud, where, numbers))


@pytest.fixture(scope="module")
def commands() -> tuple[Any, Any]:
    """The command as it is made fast, and as typer has it."""
    single = typer.Typer(rich_markup_mode=None, add_completion=False)
    single.command()(taken)
    quick, asked = get_command(single), get_command(single)
    quicken(quick)
    return quick, asked


def came(command: Any, words: list[str]) -> Any:
    try:
        return command(args=words, standalone_mode=False)
    except (typer.TyperException, StatemqError) as error:
        return type(error), str(error)


WORDS = [
    "",
    "0",
    "1",
    "9",
    "10",
    "-1",
    "-3",
    "+4",
    "1_0",
    " 3",
    "٣",
    "0x4",
    "1e0",
    "3.0",
    "9" * 400,
    "x",
    "red",
    "RED",
    "3s",
    "-3s",
    "true",
]


@pytest.mark.parametrize("option", ["", "many", "few", "colour", "timeout", "half", "where", "numbers", "loud"])
def test_a_word_means_what_typer_makes_of_it(commands: tuple[Any, Any], option: str) -> None:
    quick, asked = commands
    for word in WORDS:
        words = ["name", f"--{option}={word}"] if option else [word, word]
        assert came(quick, words) == came(asked, words), words


def test_what_is_left_out_or_given_twice_too(commands: tuple[Any, Any]) -> None:
    quick, asked = commands
    for words in ([], ["a"], ["a", "b", "--loud"], ["a", "--soft"], ["a", "--no"], ["--numbers", "1", "--numbers", "2", "a"]):
        assert came(quick, words) == came(asked, words), words


def test_one_command_is_built_for_its_own_words_and_all_for_any_others() -> None:
    whole = set(get_command(app).commands)  # type: ignore[attr-defined]
    for name in whole:
        assert set(_command([name, "gate"]).commands) == {name}
    for words in ([], ["--help"], ["gett"], ["--version", "get"]):
        assert set(_command(words).commands) == whole


def test_what_a_command_does_not_need_is_not_loaded(url: str) -> None:
    program = (
        "import sys; from statemq.cli.app import main; "
        "code = main(['list', 'gate', '--state', 'OPEN', '--older', '3d', '-n', '7', '--json', '--redis', sys.argv[1]]); "
        "print(code, [name for name in ('pydantic', 'rich', 'falcon', 'granian', 'uvloop') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program, url], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "2 []\n", done.stderr
