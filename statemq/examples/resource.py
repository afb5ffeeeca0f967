"""A resource that is set up and torn down: one state machine per key, durable to the last step.

    statemq dev statemq.examples.resource
    curl localhost:8080/resource/my-machine/setUp -d ''

Then five at once: a's and b's run side by side, those of one key one after another.

    for call in a/setUp a/tearDown b/setUp b/setUp b/tearDown; do curl localhost:8080/resource/$call -d '' & done; wait

Kill the worker meanwhile, with -9: recorded steps do not run again and a sleep goes on with what was left of it.
``RESOURCE_SECONDS`` says how long a transition takes (5). ``status`` answers while one is under way.
"""

from __future__ import annotations

import logging
import os
from enum import StrEnum

import msgspec

from statemq import Context, Machine, query, transition

SECONDS = float(os.environ.get("RESOURCE_SECONDS", "5"))
log = logging.getLogger("resource")


class Status(StrEnum):
    DOWN = "DOWN"
    UP = "UP"


class Data(msgspec.Struct):
    address: str = ""
    boot_id: str = ""


class Resource(Machine[Data, Status], initial=Status.DOWN):
    @transition(source=Status.DOWN, target=Status.UP)
    async def setUp(self, ctx: Context) -> str:
        """Allocate an address, boot, and wait until the resource is healthy."""
        self.data.address = await ctx.step("allocate", allocate, ctx.key)
        await ctx.sleep(SECONDS / 2)
        self.data.boot_id = await ctx.step("boot", boot, self.data.address, ctx.step_key("boot"))
        await ctx.sleep(SECONDS / 2)
        await ctx.step("health check", check_health, self.data.address)
        return f"{ctx.key} is now UP"

    @setUp.when(Status.UP)
    def already_up(self, ctx: Context) -> str:
        return f"{ctx.key} is already UP"

    @transition(source=Status.UP, target=Status.DOWN)
    async def tearDown(self, ctx: Context) -> str:
        """Drain what is connected, then give the address back."""
        await ctx.step("drain", drain, self.data.address)
        await ctx.sleep(SECONDS)
        await ctx.step("release", release, self.data.address)
        self.data = Data()
        return f"{ctx.key} is now DOWN"

    @tearDown.when(Status.DOWN)
    def not_yet_up(self, ctx: Context) -> str:
        return f"{ctx.key} is not yet UP"

    @query
    def status(self) -> str:
        return f"{self.key} is {self.state}" + (f" at {self.data.address}" if self.data.address else "")


def allocate(key: str) -> str:
    address = f"10.{sum(key.encode()) % 256}.{len(key) % 256}.{os.urandom(1)[0]}"
    log.info("allocated %s for %s", address, key)
    return address


def boot(address: str, request: str) -> str:
    """``request`` is the same each time this step is tried: a real provider would answer a repeat with the first boot."""
    log.info("booting %s", address)
    return f"boot-{request.partition('/')[0][-12:]}"


def check_health(address: str) -> str:
    log.info("%s is healthy", address)
    return "healthy"


def drain(address: str) -> None:
    log.info("drained %s", address)


def release(address: str) -> None:
    log.info("released %s", address)
