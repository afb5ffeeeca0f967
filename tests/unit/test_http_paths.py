"""Paths are split before they are decoded; a key may hold any character."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from statemq.http.paths import join_path, split_path
from tests.unit.http_fakes import Edge, problem

KEYS = [
    "a/b",
    "/",
    "//",
    "a/b/setUp",
    "{x}",
    "%",
    "%2F",
    "a b",
    "a+b",
    "new\nline",
    "\0",
    "é",
    "日本",
    "..",
    "-",
    "?x=1",
    "#",
    "\\",
    "x" * 512,
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_come_through(key: str) -> None:
    edge = Edge()
    assert edge.post(f"/resource/{quote(key, safe='')}/setUp").status_code == 200
    assert edge.client.sent[0].key == key


@pytest.mark.parametrize("key", KEYS)
def test_join_is_the_inverse_of_split(key: str) -> None:
    assert split_path({"raw_path": join_path("", "resource", key, "setUp").encode()}) == ("resource", key, "setUp")


def test_a_mounted_app_knows_where_it_is() -> None:
    assert split_path({"raw_path": b"/api/v1/resource/a", "root_path": "/api/v1"}) == ("resource", "a")
    assert split_path({"raw_path": b"/resource/a", "root_path": "/api/v1"}) == ("resource", "a")


def test_without_a_raw_path_the_decoded_one_is_taken() -> None:
    assert split_path({"path": "/resource/a b/setUp"}) == ("resource", "a b", "setUp")


@pytest.mark.parametrize("path", ["/resource/%FF/setUp", "/resource/%/setUp", "/resource/%4/setUp", "/resource/%ED%A0%80/setUp"])
def test_broken_escapes(path: str) -> None:
    problem(Edge().post(path), 400, "key")


@pytest.mark.parametrize(
    "path",
    ["/", "/resource", "/resource//setUp", "/resource/a/setUp/", "//a/setUp", "/a/b/c/d", "/-/a/setUp", "/-/x", "/resource/a/-/send"],
)
def test_what_is_no_path(path: str) -> None:
    problem(Edge().post(path), 404, "not_found")


def test_methods_that_a_path_does_not_take() -> None:
    edge = Edge()
    result = edge.ask("PUT", "/resource/a/setUp")
    problem(result, 405, "method")
    assert "POST" in result.headers["allow"] and "GET" in result.headers["allow"]
    problem(edge.get("/resource/a/setUp/send"), 405, "method")
    problem(edge.post("/-/health"), 405, "method")
    for result, detail, allow in [
        (edge.get("/resource/a/setUp"), "setUp is a transition of resource: POST it", "POST, OPTIONS"),
        (edge.post("/resource/a/room"), "room is a query of resource: GET it", "GET, HEAD, OPTIONS"),
    ]:
        assert (problem(result, 405, "method")["detail"], result.headers["allow"]) == (detail, allow)
    assert edge.ask("HEAD", "/resource/a").status_code == 200
    assert edge.ask("OPTIONS", "/resource/a/setUp").status_code == 200
