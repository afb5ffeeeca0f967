"""The command line: which commands there are, and how every error ends."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from statemq.cli import act, ask, bench, check, ends, graph, run, see, start
from statemq.cli.escape import clean
from statemq.cli.plain import quicken
from statemq.cli.sections import Sections
from statemq.errors import Pending, StatemqError, UsageError
from statemq.shadow import in_place_of_a_library

RUN, ASK, SEE, ACT, CHECK = "Run", "Ask", "See", "Act", "Check"

app = typer.Typer(
    name="statemq",
    rich_markup_mode=None,
    cls=Sections,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 ok, 1 rejected, failed or cancelled, 2 usage, 3 no Redis, 4 wait timed out, 130 Ctrl-C.",
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False
) -> None:
    """Consistent, durable state machines, one per key, on Redis Streams.

    A first minute:

    \b
      statemq init                           write order.py, a first machine
      statemq dev order.py                   run it, its Redis too, until Ctrl-C
      statemq call order o-1 pay cents=1200  run a transition, print its result
      statemq get order o-1                  show state and data
      statemq history order                  show what happened

    MACHINE is a machine's name, KEY one of its instances, TARGET code that declares machines: package.module,
    package.module:Class or a .py file. Durations are written 500ms, 30s, 5m, 2h, 1d.
    """
    if version:
        from importlib.metadata import PackageNotFoundError
        from importlib.metadata import version as installed

        try:
            typer.echo(f"statemq {installed('statemq')}")
        except PackageNotFoundError:
            typer.echo("statemq (from a checkout)")
        raise typer.Exit
    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help())


app.command(rich_help_panel=RUN)(start.init)
if importlib.util.find_spec("statemq.cli.dev"):
    app.command("dev", rich_help_panel=RUN)(importlib.import_module("statemq.cli.dev").command)
app.command(rich_help_panel=RUN)(run.worker)
app.command(rich_help_panel=RUN)(run.serve)

app.command(rich_help_panel=ASK)(ask.call)
app.command(rich_help_panel=ASK)(ask.send)
app.command(rich_help_panel=ASK)(ask.can)
app.command(rich_help_panel=ASK)(ask.query)

app.command(rich_help_panel=SEE)(see.machines)
app.command(rich_help_panel=SEE)(see.get)
app.command("list", rich_help_panel=SEE)(see.list_)
app.command(rich_help_panel=SEE)(see.queue)
app.command(rich_help_panel=SEE)(see.history)
app.command(rich_help_panel=SEE)(see.audit)
app.command("show", rich_help_panel=SEE)(see.show_)
app.command(rich_help_panel=SEE)(ask.result)
app.command(rich_help_panel=SEE)(see.partitions)
app.command(rich_help_panel=SEE)(see.workers)
app.command(rich_help_panel=SEE)(graph.graph)

app.command(rich_help_panel=ACT)(act.cancel)
app.command(rich_help_panel=ACT)(act.empty)
app.command(rich_help_panel=ACT)(act.pause)
app.command(rich_help_panel=ACT)(act.resume)
app.add_typer(act.failed, name="failed", rich_help_panel=ACT)

app.command(rich_help_panel=CHECK)(check.doctor)
app.command(rich_help_panel=CHECK)(check.acl)
app.command(rich_help_panel=CHECK)(bench.bench)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code; what goes wrong is one sentence on stderr, never a traceback.

    ``STATEMQ_TRACEBACK=1`` lets errors nobody foresaw pass, for a report.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a test's stream may not know how
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _check_text(words)
        code = _command(words)(args=words, prog_name="statemq", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except StatemqError as error:
        ends.say(ends.sentence_of(error))
        if isinstance(error, Pending) and error.id:
            ends.hint_result(error.id)
        return ends.code_of(error)
    except typer.TyperException as error:
        if error.format_message():  # empty when its help was shown instead
            ends.say(_usage(error, words))
        return ends.USAGE
    except SystemExit as end:  # a shell has asked what may stand here, and was told
        return end.code if isinstance(end.code, int) else ends.OK
    except (KeyboardInterrupt, typer.Abort):
        return ends.INTERRUPTED
    except BrokenPipeError:  # whoever read our answer has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ends.ENDED_BADLY
    except Exception as error:  # the last place where it can become a sentence
        if os.environ.get("STATEMQ_TRACEBACK"):
            raise
        if hidden := in_place_of_a_library(error):
            ends.say(hidden)
            return ends.USAGE
        ends.say(f"unexpected {type(error).__name__}: {error} (STATEMQ_TRACEBACK=1 shows where)")
        return ends.ENDED_BADLY


def entry() -> NoReturn:
    """``main`` as a process of its own: it ends, also when something that a worker ran does not, and though nobody hears it any more."""
    code = ends.ENDED_BADLY
    try:
        code = main()
    finally:
        if (leftover := sys.modules.get("statemq.worker.leftover")) is not None:
            leftover.end_within(code)
    sys.exit(code)


def _command(words: Sequence[str]) -> Any:
    """The command line with the command that the words begin with alone: to build all of them takes longer than most of them run.
    It is whole where they begin with anything else, such as --help or a command's name that is mistyped."""
    part = copy.copy(app)
    part.registered_commands = [one for one in app.registered_commands if [one.name or getattr(one.callback, "__name__", "")] == words[:1]]
    part.registered_groups = [one for one in app.registered_groups if [one.name] == words[:1]]
    command = get_command(part if part.registered_commands or part.registered_groups else app)
    quicken(command)
    return command


def _check_text(words: Sequence[str]) -> None:
    """Raises UsageError for bytes that are no text, since nothing of statemq's is named by such, and for a folder that is gone."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise UsageError(_no_text(word)) from None
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(f"the working folder cannot be used ({error.strerror}); go to another one") from None


def _no_text(word: str) -> str:
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return f'"{clean(word)}" is not valid UTF-8'
    return f'"{clean(word)}" is no text where the locale\'s encoding is {encoding}; set LC_ALL=C.UTF-8, or PYTHONUTF8=1'


CONFIRMS = ("--yes", "-y", "--force", "-f")
"""What other programs are told so that they do not ask."""


def _usage(error: typer.TyperException, words: Sequence[str]) -> str:
    """What is wrong with the words given, what may have been meant, and where help is."""
    text = error.format_message().rstrip(".").replace(": Value error, ", ": ")
    context = getattr(error, "ctx", None)
    option = getattr(error, "option_name", None)
    if context is None:
        return text
    if isinstance(option, str) and text.lower().startswith("no such option"):
        names = [parameter.name for parameter in context.command.params if parameter.param_type_name == "argument"]
        if option in CONFIRMS:
            text = f"No such option: {option}, and none is needed: {context.command_path} asks no questions"
        elif "arguments" in names and option.startswith("--"):
            text += f". Arguments are written {option.lstrip('-')}=value, without dashes"
        if option not in CONFIRMS and "key" in names and len(_before(option, context, words)) <= names.index("key"):
            text += f". A key that begins with - goes after --: {context.command_path} ... -- {option}"
    return f"{text}{'' if text.endswith('?') else '.'} Help: {context.command_path} --help"


def _before(option: str, context: Any, words: Sequence[str]) -> list[str]:
    """The words for the command's arguments that stand before the option, without its name, its options and their values."""
    words = words[: next((at for at, word in enumerate(words) if word.startswith(option)), len(words))]
    valued = {name for one in context.command.params if one.param_type_name == "option" and not one.is_flag for name in one.opts}
    found = [word for before, word in zip(["", *words], words, strict=False) if not word.startswith("-") and before not in valued]
    return found[len(context.command_path.split()) - 1 :]
