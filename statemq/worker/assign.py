"""Who should hold which partition: a plain function of who lives and who holds what."""

from __future__ import annotations

from collections.abc import Sequence


def plan(workers: Sequence[str], owners: Sequence[str | None]) -> list[str | None]:
    """For each partition the worker that should own it.

    Fair: no worker gets two more than another. Stable: what a worker holds stays with it as far as fairness allows, so
    equal views give equal plans and a plan carried out is a fixed point. Owners that are not among ``workers`` count as gone.

    >>> plan(["a", "b"], ["a", "a", "a", None])
    ['a', 'a', 'b', 'b']
    """
    if not workers:
        return [None] * len(owners)
    held: dict[str, list[int]] = {w: [] for w in workers}
    for p, owner in enumerate(owners):
        if owner in held:
            held[owner].append(p)
    base, extra = divmod(len(owners), len(held))
    # who holds most keeps the larger share, so that nothing moves which need not
    ranked = sorted(held, key=lambda w: (-len(held[w]), w))
    share = {w: base + (i < extra) for i, w in enumerate(ranked)}
    wanted: list[str | None] = [None] * len(owners)
    for w in ranked:
        for p in held[w][: share[w]]:
            wanted[p] = w
    takers = [w for w in sorted(held) for _ in range(share[w] - min(share[w], len(held[w])))]
    for p, taker in zip((p for p, w in enumerate(wanted) if w is None), takers, strict=True):
        wanted[p] = taker
    return wanted
