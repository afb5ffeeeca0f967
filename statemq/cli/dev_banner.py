"""What `dev` shows once everything answers: lines to copy, made from the first machine."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from statemq.cli.dev_target import Declared
from statemq.cli.ends import command
from statemq.config import shown
from statemq.keys import PartitionKeys, partition_of

KEY = "my-machine"

ANY_OF = {"string": "text", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}, "null": None}


def banner(machine: Declared, *, http: str, redis: str, namespace: str, password: Path | None) -> str:
    """Where things are, and how to try them; ``password`` is the file of that of `dev`'s own Redis, if it is its own."""
    first = (machine.allowed or machine.transitions)[0]
    others = [name for name in machine.transitions if name != first]
    keys = PartitionKeys(namespace, machine.name, partition_of(KEY, machine.partitions))
    cli = redis_cli(redis, password)
    lines = [
        "",
        f"  {machine.name} runs.  HTTP {http}   Redis {shown_url(redis)}{' (own, kept in the data folder)' if password else ''}",
        "",
        "  Try it:",
        f"    {curl(http, machine, first)}",
        *(f"    {curl(http, machine, name)}" for name in others[:1]),
        f"    {curl(http, machine, None)}",
        f"    {command()} call {machine.name} {KEY} {first}{call_arguments(machine, first)}",
        "",
        f"  Look into it ({KEY} is in partition {keys.number}):",
        *(f"    {cli} {line}" for line in looks(keys)),
        "",
        "  Send one by hand:",
        f"    {cli} {by_hand(keys, machine, first)}",
        "",
    ]
    return "\n".join(lines)


def curl(http: str, machine: Declared, transition: str | None) -> str:
    """The line that runs a transition, or asks for the instance."""
    place = f"{http.removeprefix('http://')}/{machine.name}/{KEY}"
    if transition is None:
        return f"curl {place}"
    body = shlex.quote(arguments_text(machine, transition)) if arguments(machine, transition) else "''"
    return f"curl {place}/{transition} -H 'content-type: application/json' -d {body}"


def looks(keys: PartitionKeys) -> list[str]:
    """The commands waiting or running, the instance, the owner, and the steps of what runs."""
    return [
        f"XRANGE '{keys.commands}' - +",
        f"HGETALL '{keys.instance(KEY)}'",
        f"HGETALL '{keys.lease}'",
        f"--scan --pattern '{keys.steps('*')}'   # then HGETALL one",
    ]


def by_hand(keys: PartitionKeys, machine: Declared, transition: str) -> str:
    args = f" args {shlex.quote(arguments_text(machine, transition))}" if arguments(machine, transition) else ""
    return f"XADD '{keys.commands}' '*' key {KEY} transition {transition}{args}"


def call_arguments(machine: Declared, transition: str) -> str:
    return f" {shlex.quote(arguments_text(machine, transition))}" if arguments(machine, transition) else ""


def arguments_text(machine: Declared, transition: str) -> str:
    return json.dumps(arguments(machine, transition))


def arguments(machine: Declared, transition: str) -> dict[str, Any]:
    """A value of the right kind for each argument that has no default."""
    schema = machine.arguments.get(transition)
    return example(schema, schema.get("$defs", {})) if schema else {}


def example(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """Some value that fits a JSON schema, as small as it can be."""
    if reference := schema.get("$ref"):
        return example(definitions.get(reference.rpartition("/")[2], {}), definitions)
    for name in ("enum", "examples"):
        if schema.get(name):
            return schema[name][0]
    if "const" in schema:
        return schema["const"]
    if schema.get("anyOf"):
        return example(schema["anyOf"][0], definitions)
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {name: example(properties.get(name, {}), definitions) for name in schema.get("required", [])}
    kind = schema.get("type", "string")
    if kind in ("integer", "number") and "minimum" in schema:
        return schema["minimum"]
    return ANY_OF.get(kind, "text")


def redis_cli(url: str, password: Path | None = None) -> str:
    """``redis-cli -p 6379`` for a plain local server, else with the URL. The password is read from its file: it stands in no line."""
    parts = urlsplit(url)
    if password:
        near = password.relative_to(Path.cwd()) if password.is_relative_to(Path.cwd()) else password
        return f"REDISCLI_AUTH=$(cat {shlex.quote(str(near))}) redis-cli -p {parts.port}"
    plain = parts.scheme == "redis" and parts.hostname in ("127.0.0.1", "localhost") and not parts.password
    if plain and parts.path in ("", "/", "/0") and not parts.query:
        return f"redis-cli -p {parts.port or 6379}"
    tool = "valkey-cli" if parts.scheme in ("valkey", "valkeys") else "redis-cli"
    return f"{tool} -u {shlex.quote(shown_url(url))}"


def shown_url(url: str) -> str:
    """The URL without its password, and without its options, which may hold one too."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    if "@" in parts.query + parts.fragment + parts.path:  # a "?", "#" or "/" in a password: there is no telling where it ends
        return shown(url)
    user = login.partition(":")[0] + (":..." if ":" in login else "")
    return f"{parts.scheme}://{user}{at}{place}{parts.path}"
