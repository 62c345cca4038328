"""What a backend is told before it makes a VM, and what it says of itself."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.record import field, record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from typing import Any


@record(frozen=True)
class Capabilities:
    """What a backend offers; probed, never derived from a version.

    - `threads`: vCPUs run on threads of their own; otherwise one thread runs them in turns.
    - `deterministic`: same machine, seed and input give the same instruction stream.
    - `extensions`: every capability by its name in the backend's own terms, with its value (KVM: KVM_CAP_* without prefix).
    """

    threads: bool
    deterministic: bool
    max_vcpus: int
    irqchips: tuple[str, ...]
    readonly_memory: bool
    dirty_log: bool
    dirty_ring: bool
    guest_memfd: bool
    irqfd: bool
    ioeventfd: bool
    guest_debug: bool
    msr_exits: bool
    extensions: Mapping[str, int]


@record(frozen=True)
class VmConfig:
    """What a backend must know before it makes a VM.

    `features` add ("+name") or mask ("-name") CPUID features on top of the CPU template `cpu` ("host", "max", or a named
    model of `pyhv.x86.cpuid`). `seed` feeds what a deterministic backend would otherwise draw. A backend with a clock of
    its own holds `lock` around the clock's timers.
    """

    vcpus: int = 1
    irqchip: str = "split"
    cpu: str = "host"
    features: tuple[str, ...] = ()
    dirty_ring: int = 0
    seed: int = 0
    lock: AbstractContextManager[Any] | None = field(default=None, compare=False, repr=False)
