"""Which resource answers a path. Matches whole decoded segments, so a key may hold any character."""

from __future__ import annotations

from typing import Any

import falcon
from falcon.routing import CompiledRouter, map_http_methods, set_default_responders

from statemq.http.request import Request


class Route:
    """A pattern of segments, ``{name}`` for one that is a parameter, and the methods of its resource."""

    def __init__(self, template: str, resource: object) -> None:
        self.template, self.resource = template, resource
        self.segments = tuple(segment for segment in template.split("/") if segment)
        self.methods: dict[str, Any] = dict(map_http_methods(resource))
        if "GET" in self.methods:
            self.methods["HEAD"] = self.methods["GET"]
        set_default_responders(self.methods, asgi=True)

    def match(self, path: tuple[str, ...]) -> dict[str, str] | None:
        """The parameters, or None. No parameter is empty, and none that begins a path is ``-``, which is the engine's."""
        found: dict[str, str] = {}
        for index, (wanted, given) in enumerate(zip(self.segments, path, strict=True)):
            if wanted.startswith("{"):
                if not given or (given == "-" and index != 1):
                    return None
                found[wanted[1:-1]] = given
            elif wanted != given:
                return None
        return found


class Router(CompiledRouter):
    """Falcon's router, except that it goes by the path's segments as they were before decoding."""

    def __init__(self) -> None:
        super().__init__()
        self._by_length: dict[int, list[Route]] = {}

    def add_route(self, uri_template: str, resource: object, **kwargs: Any) -> None:
        """Of several that match, the one that was added first answers."""
        route = Route(uri_template, resource)
        self._by_length.setdefault(len(route.segments), []).append(route)

    def find(self, uri: str, req: falcon.Request | None = None) -> Any:
        assert isinstance(req, Request)
        for route in self._by_length.get(len(req.segments), ()):
            found = route.match(req.segments)
            if found is not None:
                return route.resource, route.methods, found, route.template
        return None
