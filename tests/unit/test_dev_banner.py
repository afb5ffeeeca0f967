"""The lines to copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from statemq import config
from statemq.cli.dev_banner import banner, example, redis_cli, shown_url
from statemq.cli.dev_target import Declared

RESOURCE = Declared(
    name="resource", partitions=16, initial="DOWN", allowed=["setUp", "tearDown"], transitions=["setUp", "tearDown"], arguments={}
)


def shown(machine: Declared = RESOURCE, redis: str = "redis://127.0.0.1:20000", password: Path | None = None) -> list[str]:
    text = banner(machine, http="http://localhost:8080", redis=redis, namespace="statemq", password=password)
    return [line.strip() for line in text.splitlines()]


def test_the_lines_name_the_key_the_transitions_and_the_partition() -> None:
    lines = shown()
    for line in (
        "curl localhost:8080/resource/my-machine/setUp -H 'content-type: application/json' -d ''",
        "curl localhost:8080/resource/my-machine/tearDown -H 'content-type: application/json' -d ''",
        "curl localhost:8080/resource/my-machine",
        "statemq call resource my-machine setUp",
        "redis-cli -p 20000 XRANGE 'statemq:{resource:5}:commands' - +",
        "redis-cli -p 20000 HGETALL 'statemq:{resource:5}:instance:my-machine'",
        "redis-cli -p 20000 HGETALL 'statemq:{resource:5}:lease'",
        "redis-cli -p 20000 --scan --pattern 'statemq:{resource:5}:steps:*'   # then HGETALL one",
        "redis-cli -p 20000 XADD 'statemq:{resource:5}:commands' '*' key my-machine transition setUp",
    ):
        assert line in lines


def test_arguments_without_a_default_are_filled_in() -> None:
    schema = {
        "$ref": "#/$defs/pay",
        "$defs": {"pay": {"type": "object", "properties": {"cents": {"type": "integer"}, "note": {"default": ""}}, "required": ["cents"]}},
    }
    order = Declared(name="order", partitions=4, initial="NEW", allowed=["pay"], transitions=["pay"], arguments={"pay": schema})
    lines = shown(order)
    assert """curl localhost:8080/order/my-machine/pay -H 'content-type: application/json' -d '{"cents": 1}'""" in lines
    assert """statemq call order my-machine pay '{"cents": 1}'""" in lines
    assert any(line.endswith("""transition pay args '{"cents": 1}'""") for line in lines)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "string"}, "text"),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "number"}, 1.5),
        ({"type": "boolean"}, True),
        ({"enum": ["red", "blue"]}, "red"),
        ({"const": 7}, 7),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, None),
        ({"type": "array", "items": {"type": "integer"}}, []),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}, {"a": "x"}),
        ({}, "text"),
    ],
)
def test_examples_fit_their_schema(schema: dict[str, Any], value: object) -> None:
    assert json.dumps(example(schema, {"A": {"enum": ["x"]}})) == json.dumps(value)


def test_no_password_is_shown() -> None:
    url = "rediss://user:s3cret@redis.example:6380/0"
    assert shown_url(url) == "rediss://user:...@redis.example:6380/0"
    assert redis_cli(url) == "redis-cli -u rediss://user:...@redis.example:6380/0"
    assert "s3cret" not in "".join(shown(redis=url))


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:7000/0?password=s3cret",
        "redis://localhost:7000?username=u&password=s3cret&db=2",
        "redis://localhost?PASSWORD=s3cret",
        "redis://:s3cret@localhost",
        "redis://u:s3cret@localhost:7000/1?password=s3cret",
        "redis://:s3cret%40x@localhost",
        "redis://u:a?s3cret@localhost",
        "redis://u:a#s3cret@localhost",
        "redis://u:a/s3cret@localhost",
        "redis://localhost#password=s3cret",
        "unix:///run/redis.sock?password=s3cret",
        "redis+sentinel://u:s3cret@h1:1,h2:2/service/0?sentinel_password=s3cret",
    ],
)
def test_no_password_is_shown_wherever_it_stands(url: str) -> None:
    assert "s3cret" not in shown_url(url) + redis_cli(url) + config.shown(url)
    assert "s3cret" not in "".join(shown(redis=url))


def test_the_password_of_its_own_redis_is_read_from_its_file() -> None:
    url, password = "redis://:s3cret@127.0.0.1:20000", Path.cwd() / ".statemq" / "password"
    assert redis_cli(url, password) == "REDISCLI_AUTH=$(cat .statemq/password) redis-cli -p 20000"
    assert redis_cli(url, Path("/else where/password")).startswith("REDISCLI_AUTH=$(cat '/else where/password') ")
    assert "s3cret" not in "".join(shown(redis=url, password=password))


def test_a_local_server_needs_only_its_port() -> None:
    assert redis_cli("redis://localhost") == "redis-cli -p 6379"
    assert redis_cli("redis://localhost:7000/2") == "redis-cli -u redis://localhost:7000/2"
