"""Looking: instances, queries, commands by id, machines, health, and the OpenAPI document."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from statemq.config import HttpSettings
from statemq.errors import RedisAway, Unknown
from statemq.http.instances import read_argument
from statemq.http.problems import ERRORS
from statemq.records import CommandStatus, Instance, Outcome, Queued, Step
from tests.unit.http_fakes import Edge, problem

ID = "resource.7.01930c2e5b7a7c3e8f6a2b4c6d8e0f12"
OTHER = "resource.7.01930c2e5b7a7c3e8f6a2b4c6d8e0f13"


@pytest.fixture
def edge() -> Edge:
    return Edge()


def test_an_instance_with_what_is_under_way(edge: Edge) -> None:
    edge.client.instance = Instance("", "", "DOWN", 3, {"size": 2}, True, False, 1_732_449_000_123, 1_732_449_600_123, 2)
    edge.client.queued = [
        Queued(ID, "a/b", "setUp", "running", "stream"),
        Queued(OTHER, "a/b", "tearDown", "queued", "stream", error="why"),
    ]
    edge.client.status = CommandStatus(
        ID, "running", "resource", "a/b", "setUp", {"size": 2}, attempts=2, steps=[Step("allocate", 7, "", 1_732_449_600_000, 12)]
    )
    result = edge.get("/resource/a%2Fb")
    assert (result.status_code, result.headers["etag"]) == (200, '"3"')
    assert result.json == {
        "machine": "resource",
        "key": "a/b",
        "exists": True,
        "state": "DOWN",
        "version": 3,
        "data": {"size": 2},
        "paused": False,
        "entered": "2024-11-24T11:50:00.123Z",
        "updated": "2024-11-24T12:00:00.123Z",
        "allowed": ["setUp"],
        "running": {
            "id": ID,
            "status": "running",
            "machine": "resource",
            "key": "a/b",
            "transition": "setUp",
            "arguments": {"size": 2},
            "attempts": 2,
            "steps": [{"name": "allocate", "result": 7, "at": "2024-11-24T12:00:00.000Z", "took_ms": 12}],
        },
        "queue": [{"id": OTHER, "transition": "tearDown", "status": "queued", "error": "why"}],
    }


def test_an_untouched_key(edge: Edge) -> None:
    body = edge.get("/resource/a").json
    assert (body["exists"], body["state"], body["version"], body["updated"], body["running"], body["queue"]) == (
        False,
        "DOWN",
        0,
        None,
        None,
        [],
    )


def test_a_machine_that_others_declared(edge: Edge) -> None:
    edge.client.instance = Instance("", "", "PAID", 1, exists=True)
    assert edge.get("/order/7").json["allowed"] == ["ship"]


def test_a_command_that_ended_meanwhile_is_not_shown_as_running(edge: Edge) -> None:
    edge.client.queued = [Queued(ID, "a", "setUp", "running", "stream")]
    edge.client.status = CommandStatus(ID, "completed")
    assert edge.get("/resource/a").json["running"] is None


@pytest.mark.parametrize(
    ("asked", "arguments"),
    [
        ("?least=2", {"least": 2}),
        ("?least=2&strict=true", {"least": 2, "strict": True}),
        ("?least=2&names=a&names=b", {"least": 2, "names": ["a", "b"]}),
        ("?least=2&names=%5B%22a%22%5D", {"least": 2, "names": ["a"]}),
        ("?least=x", {"least": "x"}),
        ("?other=1", {"other": "1"}),
        ("", {}),
    ],
)
def test_arguments_of_queries_are_read_by_their_types(edge: Edge, asked: str, arguments: dict[str, Any]) -> None:
    result = edge.get(f"/resource/a/room{asked}")
    assert (result.status_code, result.json) == (200, {"room": 3})
    assert edge.client.asked == [("resource", "a", "room", arguments)]


def test_numbers_stay_texts_where_texts_are_declared() -> None:
    assert read_argument(["007"], str) == "007"
    assert read_argument(["1.5"], float) == 1.5
    assert read_argument(["null"], int | None) is None
    assert read_argument(['{"a": 1}'], dict[str, int]) == {"a": 1}


def test_a_command_by_its_id(edge: Edge) -> None:
    edge.client.status = CommandStatus(
        ID, "rejected", "resource", "a", "setUp", {}, outcome=Outcome(ID, "rejected", reason="no", code="rejected", state="UP", at=1)
    )
    result = edge.get(f"/-/commands/{ID}")
    assert result.headers["statemq-id"] == ID
    assert result.json["status"] == "rejected"
    assert result.json["outcome"]["reason"] == "no"
    assert result.json["outcome"]["at"] == "1970-01-01T00:00:00.001Z"


def test_ids_that_are_none_or_not_known(edge: Edge) -> None:
    problem(edge.get(f"/-/commands/{ID}"), 404, "unknown")
    for path in ("", "/result"):
        problem(edge.get(f"/-/commands/nonsense{path}"), 400, "usage")
    problem(edge.post("/-/commands/nonsense/cancel"), 400, "usage")


def test_a_result_is_what_the_post_would_have_answered(edge: Edge) -> None:
    result = edge.get(f"/-/commands/{ID}/result")
    assert (result.status_code, result.text, result.headers["statemq-id"]) == (200, '"a is now UP"\n', ID)
    edge.client.outcome = Outcome("", "rejected", "a", "setUp", reason="no", code="rejected")
    assert problem(edge.get(f"/-/commands/{ID}/result"), 409, "rejected")["machine"] == "resource"
    edge.client.outcome = Unknown("nothing is known of it", id=ID)
    problem(edge.get(f"/-/commands/{ID}/result"), 404, "unknown")
    edge.client.ended.clear()
    assert problem(edge.get(f"/-/commands/{ID}/result?wait=0"), 504, "pending")["id"] == ID


@pytest.mark.parametrize(("said", "status"), [("cancelled", 200), ("asked", 202)])
def test_cancel(edge: Edge, said: str, status: int) -> None:
    edge.client.said, edge.client.status = said, CommandStatus(ID, "queued")
    result = edge.post(f"/-/commands/{ID}/cancel")
    assert (result.status_code, result.json) == (status, {"id": ID, "cancel": said})


def test_cancel_of_what_has_ended(edge: Edge) -> None:
    edge.client.said, edge.client.status = "ended", CommandStatus(ID, "completed")
    assert problem(edge.post(f"/-/commands/{ID}/cancel"), 409, "ended")["id"] == ID


def test_machines(edge: Edge) -> None:
    (machine,) = edge.get("/-/machines").json
    assert (machine["name"], machine["states"], machine["waiting"]) == ("resource", ["DOWN", "UP"], 0)


def test_alive_but_not_ready_without_redis() -> None:
    edge = Edge()
    edge.client.connect_fault = RedisAway("cannot connect to redis://:secret@host")
    assert edge.get("/-/health").status_code == 200
    for result in (edge.get("/-/ready"), edge.get("/resource/a"), edge.post("/resource/a/setUp")):
        problem(result, 503, "redis_away")
        assert result.headers["retry-after"] == "1"
        assert "secret" not in result.text
    back = Edge()
    assert back.get("/-/ready").status_code == 200


def test_a_redis_that_does_not_answer_is_not_waited_for_for_ever() -> None:
    edge = Edge(settings=HttpSettings(redis_within_s=0.01))

    async def never(machine: str) -> dict[str, Any]:
        await edge.client.hang.wait()
        return {}

    edge.client.graph = never  # type: ignore[method-assign]
    problem(edge.get("/-/ready"), 503, "redis_away")


@pytest.mark.parametrize("path", ["/resource/a?x=1", "/-/machines?x=1", f"/-/commands/{ID}?x=1", f"/-/commands/{ID}/result?x=1"])
def test_unknown_parameters_are_refused(edge: Edge, path: str) -> None:
    problem(edge.get(path), 400, "parameter")


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        found = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return found + [reference for part in value.values() for reference in references(part)]
    return [reference for part in value for reference in references(part)] if isinstance(value, list) else []


def test_openapi_is_a_document_that_holds_together(edge: Edge) -> None:
    document = edge.get("/openapi.json").json
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    ids = []
    for path, item in document["paths"].items():
        named = {parameter["name"] for parameter in item.get("parameters", ()) if parameter["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path)), path
        for method, operation in item.items():
            if method == "parameters":
                continue
            assert method in ("get", "post")
            ids.append(operation["operationId"])
            assert operation["responses"]["default"] == {"$ref": "#/components/responses/Problem"}
            for parameter in operation.get("parameters", ()):
                assert {"name", "in", "schema"} <= parameter.keys()
    assert len(ids) == len(set(ids))
    for reference in references(document):
        place: Any = document
        for name in reference.removeprefix("#/").split("/"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+", name), reference
            place = place[name]
    assert document["components"]["schemas"]["Problem"]["properties"]["error"]["enum"] == list(ERRORS)


def test_openapi_tells_the_declared_machines(edge: Edge) -> None:
    paths = edge.get("/openapi.json").json["paths"]
    up = paths["/resource/{key}/setUp"]["post"]
    assert up["summary"] == "Brings the resource up."
    assert up["requestBody"]["required"] is False
    assert up["responses"]["200"]["content"]["application/json"]["schema"] == {"type": "string"}
    assert "202" in paths["/resource/{key}/setUp/send"]["post"]["responses"]
    room = {parameter["name"]: parameter for parameter in paths["/resource/{key}/room"]["get"]["parameters"]}
    assert (room["least"]["required"], room["strict"]["required"], room["least"]["schema"]) == (True, False, {"type": "integer"})
    assert "/-/commands/{id}" in paths
    json.dumps(paths)
