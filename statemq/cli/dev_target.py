"""What a target declares now, read in a fresh process, so that this one never holds yesterday's code.

``python -m statemq.cli.dev_target TARGET FD`` writes it to that open file, a pipe, as JSON.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from statemq.cli.dev_imports import importable
from statemq.errors import StatemqError, UsageError
from statemq.python import python
from statemq.server.host import end_with_parent
from statemq.target import added, load_target, users_frame

IMPORT_WITHIN_S = 60.0
STDERR = 2
PIECE = 1 << 16
PACKAGE = Path(__file__).parents[1]
STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))


class Declared(msgspec.Struct, frozen=True):
    """A machine of the target: what the banner needs of it."""

    name: str
    partitions: int
    initial: str
    allowed: list[str]
    """What its initial state allows."""
    transitions: list[str]
    arguments: dict[str, Any]
    """Transition → JSON schema."""


class Looked(msgspec.Struct, frozen=True):
    """The outcome: machines and the files they come from, or what is wrong and where."""

    machines: list[Declared] = []
    files: list[str] = []
    wrong: str = ""
    """One sentence, or several lines for a wrong declaration."""
    file: str = ""
    line: int = 0
    text: str = ""
    """The line as it stands in the file."""

    def block(self) -> str:
        """What is wrong, and the line, for people."""
        where = f"\n  {self.file}, line {self.line}:\n    {self.text}" if self.line and self.text else ""
        return f"{self.wrong}{where}"


class Look:
    """A look at a target that goes on in a process of its own; ``poll`` until it is done."""

    def __init__(self, target: str, env: Mapping[str, str]) -> None:
        self.target = target
        self._answer = b""
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        try:
            self._process = subprocess.Popen(
                python("statemq.cli.dev_target", target, str(write)),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=STDERR,  # what the user's module prints is no answer of ours
                start_new_session=True,  # Ctrl-C in a terminal is for the parent
                pass_fds=(write,),
                preexec_fn=end_with_parent(),
            )
        finally:
            os.close(write)
        self._deadline_s = time.monotonic() + IMPORT_WITHIN_S

    def poll(self) -> Looked | None:
        """What was found, or None while it goes on."""
        code = self._process.poll()
        with contextlib.suppress(BlockingIOError):
            while part := os.read(self._read, PIECE):
                self._answer += part
        if code is None:
            if time.monotonic() < self._deadline_s:
                return None
            self.close()
            return Looked(wrong=f"importing {self.target} did not end within {IMPORT_WITHIN_S:.0f} s")
        try:
            return msgspec.json.decode(self._answer, type=Looked)
        except msgspec.DecodeError:
            return Looked(wrong=f"importing {self.target} ended the process (exit code {code})")
        finally:
            self.close()

    def wait(self) -> Looked:
        """What was found."""
        try:
            while (looked := self.poll()) is None:
                time.sleep(0.01)
            return looked
        finally:
            self.close()

    def close(self) -> None:
        """The process has ended and nothing of it is left."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1


def look(target: str) -> Looked:
    """What the target declares, found by importing it here."""
    try:
        machines = load_target(target)
    except StatemqError as error:
        return _wrong(error)
    specs = [machine.spec for machine in machines]
    declared = [
        Declared(
            name=spec.name,
            partitions=spec.partitions,
            initial=spec.initial,
            allowed=spec.allowed(spec.initial),
            transitions=list(spec.transitions),
            arguments={name: spec.graph()["arguments"].get(name, {}) for name in spec.transitions},
        )
        for spec in specs
    ]
    return Looked(machines=declared, files=_files([sys.modules[spec.cls.__module__] for spec in specs]))


def _files(modules: list[Any]) -> list[str]:
    """The files of the target, and of what it imports, or may import, from its own and the working folder."""
    own = [Path(path).resolve() for module in modules if (path := getattr(module, "__file__", None))]
    here = Path.cwd().resolve()
    paths = [Path(entry).resolve() for entry in sys.path if entry]
    roots = list(dict.fromkeys([here, *(folder.resolve() for folder in added), *(path for path in paths if _is_ours(path, [here]))]))
    loaded = [Path(path) for module in list(sys.modules.values()) if (path := getattr(module, "__file__", None))]
    near = sorted(path for path in loaded if path.suffix == ".py" and _is_ours(path, roots))
    return [str(path) for path in importable([*own, *near], roots, lambda path: _is_ours(path, roots))]


def _is_ours(path: Path, roots: list[Path]) -> bool:
    """Whether a file lies in one of these folders, not in a virtual environment within it nor in statemq."""
    if path.is_relative_to(PACKAGE) or path.is_relative_to(STANDARD_LIBRARY):
        return False
    return any(
        path.is_relative_to(root) and not any(part == "site-packages" or part.startswith(".") for part in path.relative_to(root).parts)
        for root in roots
    )


def _wrong(error: StatemqError) -> Looked:
    """The sentence, and the line of the user's code that caused it."""
    cause = error.__cause__ or error
    if isinstance(cause, SyntaxError):
        return Looked(wrong=str(error), file=cause.filename or "", line=cause.lineno or 0, text=(cause.text or "").strip())
    imported = not isinstance(error, UsageError) or cause is not error
    if imported and (frame := users_frame(cause)):
        return Looked(wrong=str(error), file=frame.filename, line=frame.lineno or 0, text=(frame.line or "").strip())
    return Looked(wrong=str(error))


def main() -> None:
    target, answer = sys.argv[1:]
    del sys.argv[1:]
    looked = look(target)
    with os.fdopen(int(answer), "wb") as pipe:
        pipe.write(msgspec.json.encode(looked))


if __name__ == "__main__":
    main()
