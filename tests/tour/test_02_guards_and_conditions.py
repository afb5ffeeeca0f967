"""Guards say why; ``if_state`` and ``if_version`` make a command conditional on what its sender saw."""

from __future__ import annotations

import msgspec
import pytest

from statemq import Client, Machine, Reject, Rejected, transition
from statemq.errors import UnknownTransition
from tests.working import working


class Data(msgspec.Struct):
    balance: int = 3


class Account(Machine[Data], initial="open", partitions=2):
    def _covered(self, amount: int) -> bool:
        """the balance is too low"""
        return self.data.balance >= amount

    def _round(self, amount: int) -> None:
        if amount % 10:
            raise Reject(f"{amount} is no multiple of 10", code="odd")

    @transition(source="open", guard=_covered)
    def pay(self, amount: int) -> int:
        self.data.balance -= amount
        return self.data.balance

    @transition(source="open", guard=_round)
    def deposit(self, amount: int) -> int:
        self.data.balance += amount
        return self.data.balance

    @transition(source="open", target="closed")
    def close(self) -> None:
        pass


async def test_a_guard_refuses_with_its_docstring_or_its_own_words(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Account):
        with pytest.raises(Rejected, match="the balance is too low"):
            await client.call(Account.pay("anna", amount=5), timeout=20)
        with pytest.raises(Rejected, match="7 is no multiple of 10") as refused:
            await client.call(Account.deposit("anna", amount=7), timeout=20)
        assert refused.value.code == "odd"
        assert await client.call(Account.deposit("anna", amount=10), timeout=20) == 13
        assert await client.call(Account.pay("anna", amount=5), timeout=20) == 8


async def test_can_says_the_same_without_running_anything(client: Client, url: str, namespace: str) -> None:
    assert (await client.can(Account, "anna", "pay", {"amount": 3})).allowed
    verdict = await client.can(Account, "anna", "pay", {"amount": 5})
    assert (verdict.allowed, verdict.reason, verdict.state) == (False, "the balance is too low", "open")
    assert verdict.transitions == ["pay", "deposit", "close"]
    async with working(url, namespace, Account):
        await client.call(Account.close("anna"), timeout=20)
    verdict = await client.can(Account, "anna", "pay", {"amount": 1})
    assert (verdict.allowed, verdict.reason) == (False, "account/anna is closed; pay needs open")


async def test_a_command_may_depend_on_the_state_or_version_its_sender_saw(client: Client, url: str, namespace: str) -> None:
    async with working(url, namespace, Account):
        assert await client.call(Account.deposit("anna", amount=10), if_state="open", if_version=0, timeout=20) == 13
        with pytest.raises(Rejected, match="account/anna is at version 1, not 0") as refused:
            await client.call(Account.deposit("anna", amount=10), if_version=0, timeout=20)
        assert refused.value.code == "if_version"
        with pytest.raises(Rejected, match="account/anna is open, not closed"):
            await client.call(Account.deposit("anna", amount=10), if_state="closed", timeout=20)
        with pytest.raises(UnknownTransition, match='account has no state "shut"'):
            await client.send(Account.close("anna"), if_state="shut")
        assert (await client.get(Account, "anna")).data == Data(balance=13)
