"""docs/HTTP.md has every call and every error of the HTTP edge, with what the code says of them."""

from __future__ import annotations

import re
from pathlib import Path

from statemq.config import HttpSettings
from statemq.http.app import create_service, routes
from statemq.http.problems import ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "HTTP.md").read_text()


def test_its_errors_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.+) \|$", PAGE.split("## Errors")[1], re.MULTILINE)
    assert [(word, (int(status), what)) for word, status, what in rows] == list(ERRORS.items())


def test_its_calls_are_those_of_the_code() -> None:
    rows = re.findall(r"^\| `(GET|POST) (/\S+)` \|", PAGE.split("## Calls")[1].split("\n## ")[0], re.MULTILINE)
    served = routes(create_service([], "redis://localhost", "n"))
    assert {(path, method) for method, path in rows} == {
        (path, method) for path, resource in served.items() for method in ("GET", "POST") if hasattr(resource, f"on_{method.lower()}")
    }
    assert (HttpSettings().wait_s, HttpSettings().max_wait_s) == (60, 300)
    assert "waits a minute, at most five" in PAGE
