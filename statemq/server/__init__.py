"""A Redis of one's own, for ``statemq dev`` and the tests."""

from statemq.server.embedded import EmbeddedServer

__all__ = ["EmbeddedServer"]
