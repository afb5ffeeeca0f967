"""Each line marked ``refused`` is an error to type checkers, and no other is. Never run."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from statemq import Client, Command, Context, Machine, Question, Retry, query, sync, transition


class Status(StrEnum):
    DOWN = "DOWN"
    UP = "UP"


class Other(StrEnum):
    UP = "UP"


class Data(msgspec.Struct):
    address: str = ""


def allocate(key: str, size: int) -> str:
    return f"{key}{size}"


class Resource(Machine[Data, Status], initial=Status.DOWN):
    @transition(source=Status.DOWN, target=Status.UP)
    async def setUp(self, ctx: Context, size: int = 1) -> str:
        self.state = "UP"  # refused
        self.state = Other.UP  # refused
        self.data.adress = "x"  # refused
        self.data.address = 5  # refused
        self.data.address = await ctx.step("allocate", allocate, ctx.key, "2")  # refused
        number: int = await ctx.step("allocate", allocate, ctx.key, size)  # refused
        return f"{number}"

    @setUp.when(Status.UP)  # refused
    def already_up(self, ctx: Context, size: str = "") -> str:
        return "up"

    @transition(source=Status.UPP, target=Status.DOWN)  # refused
    def tearDown(self, ctx: Context, why: str) -> int:
        return 0

    @query
    def longer(self, than: int = 0) -> bool:
        return len(self.data.address) > than


class Unknown(Machine[Data, Status], initial=Status.DOWN, on_failure="ignore"):  # refused
    pass


class Times(Machine[Data], initial="a", retry=Retry(attempts="3")):  # refused
    pass


class NoState(Machine[Data, int], initial="a"):  # refused
    pass


Resource.setUp("a", size="2")  # refused
Resource.setUp("a", sise=2)  # refused
Resource.setUp("a", 1, 2)  # refused
Resource.setUp(7)  # refused
Resource.setUp()  # refused
Resource.tearDown("a")  # refused
command: Command[int] = Resource.setUp("a")  # refused
Resource.longer("a", than="2")  # refused
Resource.longer("a", then=2)  # refused
Resource.longer(7)  # refused
question: Question[str] = Resource.longer("a")  # refused


def takes(text: str = "", number: int = 0) -> None: ...


async def seen(client: Client, blocking: sync.Client) -> None:
    takes((await client.get(Resource, "a")).data.adress)  # refused
    takes(number=(await client.get(Resource, "a")).data.address)  # refused
    takes(await client.query(Resource.longer("a")))  # refused
    await client.call(Resource.longer("a"))  # refused
    await client.query(Resource.tearDown("a", why=""))  # refused
    takes(number=blocking.get(Resource, "a").data.address)  # refused
    takes(blocking.query(Resource.longer("a")))  # refused
    blocking.call(Resource.longer("a"))  # refused
