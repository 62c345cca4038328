"""What the end of a machine comes to: its Result, and the error that belongs to it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import GuestFailed, GuestPanic, TripleFault, VmmError
from pyhv.result import Outcome, Result
from pyhv.runner import RECENT_EXITS

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.errors import GuestError
    from pyhv.vm import Vm


def make_result(vm: Vm, outcome: Outcome) -> Result:
    """The Result of a machine whose vCPUs have stopped."""
    counts: dict[str, int] = {}
    for loop in vm.loops:
        for kind, number in loop.counts.items():
            counts[kind.__name__] = counts.get(kind.__name__, 0) + number
    bad = not outcome.ok and outcome is not Outcome.FAILED
    several = len(vm.loops) > 1
    avic, avic_reason = vm.handle.avic()
    return Result(
        outcome=outcome,
        backend=vm.backend.name,
        backend_reason=vm.backend.reason,
        detail=vm.life.detail,
        guest_status=vm.life.status,
        console=vm.console.text,
        exits=dict(sorted(counts.items(), key=lambda item: -item[1])),
        unclaimed=vm.pc.unclaimed(),
        deterministic=vm.backend.hypervisor.capabilities.deterministic and not vm.live,
        instructions=vm.handle.instructions(),
        statistics=vm.handle.statistics() if vm.statistics else {},
        wall_seconds=vm.life.ended_at - vm.life.began,
        guest_seconds=sum(loop.cpu_ns for loop in vm.loops) / 1e9,
        avic=avic,
        avic_reason=avic_reason,
        registers="\n".join(
            (f"vCPU {loop.vcpu.index}:\n" if several else "") + loop.registers for loop in vm.loops if loop.registers
        ),
        last_exits=tuple(
            (f"vCPU {loop.vcpu.index} " if several else "") + repr(exit)
            for loop in vm.loops
            for exit in (loop.recent[-RECENT_EXITS:] if bad else ())
        ),
    )


def console_error(vm: Vm) -> GuestError | VmmError:
    """What `console.expect` raises when the guest has ended without printing what was expected."""
    outcome = vm.outcome
    kinds: dict[Outcome, Callable[[str], GuestError | VmmError]] = {
        Outcome.PANIC: GuestPanic,
        Outcome.TRIPLE_FAULT: TripleFault,
        Outcome.ERROR: VmmError,
    }
    make = GuestFailed if outcome is None else kinds.get(outcome, GuestFailed)
    return make(f"the guest ended ({outcome.value if outcome else 'not started'}: {vm.life.detail})")
