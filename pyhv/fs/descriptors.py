"""How many descriptors the servers of this process may hold: half of what the process may have open, shared evenly."""

from __future__ import annotations

import resource

from pyhv.memo import memo

MAX_BUDGET = 1 << 15
"""Of all servers together, however large the process's limit is: each descriptor keeps kernel memory in use."""
MIN_LIMIT = 16

_holders: set[int] = set()


@memo(1)
def budget() -> int:
    """Descriptors for all servers; raises the process's soft limit to its hard limit first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # an unlimited hard limit above what the kernel grants
            pass
        else:
            soft = hard
    return MAX_BUDGET if soft == resource.RLIM_INFINITY else min(soft // 2, MAX_BUDGET)


def join(holder: object) -> None:
    """`holder` is one more to share with."""
    budget()
    _holders.add(id(holder))


def leave(holder: object) -> None:
    """`holder` has none any more."""
    _holders.discard(id(holder))


def limit() -> int:
    """How many each holder may have now."""
    return max(budget() // max(len(_holders), 1), MIN_LIMIT)
