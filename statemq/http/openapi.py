"""``/openapi.json``: the document of the machines that this process was given."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import falcon.asgi
import msgspec

from statemq.codec import encode
from statemq.declaration.operation import Operation
from statemq.declaration.spec import MachineSpec, QuerySpec, TransitionSpec
from statemq.http.access import SUBMIT
from statemq.http.problems import ERRORS, PROBLEM_JSON, Problem
from statemq.http.request import Request
from statemq.http.service import Service
from statemq.http.views import Accepted, CancelView, CommandView, HealthView, InstanceView, MachineView, answer_line

Schema = dict[str, Any]

KEY: Schema = {
    "name": "key",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "minLength": 1},
    "description": "The instance: 1 to 512 bytes of UTF-8, percent-encoded (a slash as %2F).",
}
ID: Schema = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "description": "A command's id."}
DURATION: Schema = {"type": "string", "pattern": r"^\d+(\.\d+)?(ms|s|m|h|d)?$", "examples": ["500ms", "30s", "5m"]}


class OpenApiResource:
    """Made once; the machines of a process do not change."""

    write_role = SUBMIT

    def __init__(self, service: Service) -> None:
        self.document = encode(document(service.specs.values(), service.settings.wait_s))

    async def on_get(self, req: Request, resp: falcon.asgi.Response) -> None:
        answer_line(resp, self.document)


def document(specs: Iterable[MachineSpec], wait_s: float) -> Schema:
    """The OpenAPI 3.1 document of these machines and of the engine's own paths."""
    schemas: Schema = {}
    paths = engine_paths(schemas)
    for spec in specs:
        paths |= machine_paths(spec, schemas, wait_s)
    return {
        "openapi": "3.1.0",
        "info": {"title": "statemq", "version": package_version(), "description": about_errors()},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {"Problem": problem(schemas)},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def machine_paths(spec: MachineSpec, schemas: Schema, wait_s: float) -> Schema:
    paths: Schema = {f"/{spec.name}/{{key}}": {"parameters": [KEY], "get": get_instance(spec, schemas)}}
    for transition in spec.transitions.values():
        path = f"/{spec.name}/{{key}}/{transition.name}"
        paths.setdefault(path, {"parameters": [KEY]})["post"] = post_transition(spec, transition, schemas, wait_s)
        paths[f"{path}/send"] = {"parameters": [KEY], "post": post_send(spec, transition, schemas)}
    for query in spec.queries.values():
        paths.setdefault(f"/{spec.name}/{{key}}/{query.name}", {"parameters": [KEY]})["get"] = get_query(spec, query, schemas)
    return paths


def get_instance(spec: MachineSpec, schemas: Schema) -> Schema:
    data = schema_of(spec.data_type, f"{spec.name}.", schemas) if spec.data_type else {"type": "null"}
    state = {"type": "string", "enum": list(spec.states)}
    own = {"properties": {"state": state, "data": data}}
    return operation(f"{spec.name}.get", f"A {spec.name} as it is now", {"allOf": [schema_of(InstanceView, "", schemas), own]}, spec.name)


def post_transition(spec: MachineSpec, transition: TransitionSpec, schemas: Schema, wait_s: float) -> Schema:
    result = schema_of(transition.result_type, f"{spec.name}.{transition.name}.", schemas)
    timeout = parameter("timeout", DURATION, f"How long to wait for the result, {wait_s:g}s if not given; then 504 with the command's id.")
    found = operation(f"{spec.name}.{transition.name}", transition.doc or transition.name, result, spec.name)
    found["parameters"] = [timeout, *command_parameters(spec)]
    found["requestBody"] = body(spec, transition, schemas)
    found["responses"]["202"] = answer("Queued, as Prefer: respond-async asked", schema_of(Accepted, "", schemas))
    return found


def post_send(spec: MachineSpec, transition: TransitionSpec, schemas: Schema) -> Schema:
    summary = f"{transition.doc or transition.name} (sent only)"
    found = operation(f"{spec.name}.{transition.name}.send", summary, schema_of(Accepted, "", schemas), spec.name, "202")
    found["parameters"] = [parameter("delay", DURATION, "Queue it only after this time."), *command_parameters(spec)]
    found["requestBody"] = body(spec, transition, schemas)
    return found


def get_query(spec: MachineSpec, query: QuerySpec, schemas: Schema) -> Schema:
    result = schema_of(query.result_type, f"{spec.name}.{query.name}.", schemas)
    found = operation(f"{spec.name}.{query.name}", query.doc or query.name, result, spec.name)
    arguments = schema_of(query.arguments, f"{spec.name}.{query.name}.", schemas)
    name = arguments["$ref"].rpartition("/")[2]
    found["parameters"] = [
        {"name": field, "in": "query", "required": field in query.required, "schema": described}
        for field, described in schemas.pop(name).get("properties", {}).items()
    ]
    return found


def body(spec: MachineSpec, transition: Operation, schemas: Schema) -> Schema:
    schema = schema_of(transition.arguments, f"{spec.name}.{transition.name}.", schemas)
    return {"required": bool(transition.required), "content": {"application/json": {"schema": schema}}}


def command_parameters(spec: MachineSpec) -> list[Schema]:
    text = {"type": "string"}
    return [
        parameter("if_state", {"type": "string", "enum": list(spec.states)}, "Rejected unless the instance is in this state."),
        header("Idempotency-Key", text, "Of the instance: a request with the same key and arguments is the same command."),
        header("If-Match", text, "The instance's ETag: 412 unless it has this version when the command runs."),
        header("Prefer", text, "respond-async, wait=<seconds>"),
    ]


def engine_paths(schemas: Schema) -> Schema:
    command = schema_of(CommandView, "", schemas)
    machines = {"type": "array", "items": schema_of(MachineView, "", schemas)}
    health, cancelled = schema_of(HealthView, "", schemas), schema_of(CancelView, "", schemas)
    result = operation("command.result", "What the command's POST would have answered", {}, "-")
    result["parameters"] = [parameter("timeout", DURATION, "How long to wait for the result.")]
    cancel = operation("command.cancel", "Cancel a command", cancelled, "-")
    cancel["responses"]["202"] = answer("It is running and was asked to end", cancelled)
    return {
        "/-/machines": {"get": operation("machines", "The declared machines", machines, "-")},
        "/-/health": {"get": operation("health", "Whether this process is alive", health, "-")},
        "/-/ready": {"get": operation("ready", "Whether Redis answers and knows the machines", health, "-")},
        "/-/commands/{id}": {"parameters": [ID], "get": operation("command", "A command's status and steps", command, "-")},
        "/-/commands/{id}/result": {"parameters": [ID], "get": result},
        "/-/commands/{id}/cancel": {"parameters": [ID], "post": cancel},
    }


def operation(id: str, summary: str, result: Schema, tag: str, status: str = "200") -> Schema:
    problems: Schema = {"default": {"$ref": "#/components/responses/Problem"}}
    return {"operationId": id, "summary": summary, "tags": [tag], "responses": {status: answer("Done", result), **problems}}


def answer(description: str, schema: Schema) -> Schema:
    id = {"schema": {"type": "string"}, "description": "The command's id, if the request is about one."}
    return {"description": description, "headers": {"Statemq-Id": id}, "content": {"application/json": {"schema": schema}}}


def problem(schemas: Schema) -> Schema:
    schema = schema_of(Problem, "", schemas)
    schemas["Problem"]["properties"]["error"]["enum"] = list(ERRORS)
    return {"description": "Anything else (RFC 9457); `error` says what", "content": {PROBLEM_JSON: {"schema": schema}}}


def parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


def schema_of(type_: Any, prefix: str, schemas: Schema) -> Schema:
    """The type's schema; what it refers to goes to ``schemas``, under names that begin with ``prefix``."""
    template = f"#/components/schemas/{prefix}{{name}}"
    (schema,), components = msgspec.json.schema_components([type_], ref_template=template)
    for component in components.values():
        for described in component.get("properties", {}).values():
            if described.get("format") == "date-time":
                described.pop("default", None)  # "" stands for a field that is left out, and is no time
    schemas.update({f"{prefix}{name}": component for name, component in components.items()})
    return schema


def about_errors() -> str:
    words = "\n".join(f"- `{word}` ({status}): {meaning}" for word, (status, meaning) in ERRORS.items())
    return f"Durable state machines, one per key.\n\nErrors are `{PROBLEM_JSON}`; `error` is one of\n\n{words}"


@cache
def package_version() -> str:
    try:
        return version("statemq")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
