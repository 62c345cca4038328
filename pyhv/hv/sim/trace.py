"""The silicon's trace: its buffer, emptied between runs, as typed events (silicon/api.h, "tracing")."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.stats import EXCEPTION_NAMES
from pyhv.trace import TraceEvent

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from pyhv.trace import Take

CAPACITY = 8192
RECORD = Struct("<6QH6B16s")
EXIT, EXCEPTION, INTERRUPT = lib.SIM_TRACE_EXIT, lib.SIM_TRACE_EXCEPTION, lib.SIM_TRACE_INTERRUPT
BRANCH, INSTRUCTION = lib.SIM_TRACE_BRANCH, lib.SIM_TRACE_INSTRUCTION
BITS = {
    "exits": EXIT,
    "exceptions": EXCEPTION,
    "interrupts": INTERRUPT,
    "branches": BRANCH,
    "instructions": INSTRUCTION,
}
MODES = ("real", "v86", "16", "32", "compat", "64")
PAGE_FAULT = 14


class SimTrace:
    """A machine's trace while it is on."""

    def __init__(self, machine: Any, kinds: Iterable[str], low: int, high: int, take: Take) -> None:
        self._machine = machine
        self._take = take
        self._lost = ffi.new("uint64_t *")
        self._records = ffi.new("SimTraceRecord[]", CAPACITY)
        self._bytes = ffi.buffer(self._records)
        lib.sim_trace(machine, sum(BITS[kind] for kind in set(kinds)), low, high, self._records, CAPACITY)

    def drain(self) -> None:
        """Hand over what was recorded since the last time."""
        used = lib.sim_trace_take(self._machine, self._lost)
        count = used + self._lost[0]
        if count:
            self._take(count, lambda: map(_event, RECORD.iter_unpack(self._bytes[: used * RECORD.size])))

    def stop(self) -> None:
        """No more of it: the buffer is about to go."""
        lib.sim_trace(self._machine, 0, 0, 0, ffi.NULL, 0)


def _event(fields: tuple[Any, ...]) -> TraceEvent:
    icount, rip, address, code, a, b, cs, kind, flags, cpu, cpl, mode, length, code_bytes = fields
    place = (cpu, icount, MODES[mode], cpl, cs, rip, address)
    if kind == EXIT:
        return TraceEvent("exits", *place, name=v.exit_name(code), code=code, info=(a, b))
    if kind == EXCEPTION:
        return TraceEvent(
            "exceptions",
            *place,
            name=f"#{EXCEPTION_NAMES.get(code, code)}",
            code=code,
            error=a if flags & lib.SIM_TRACE_HAS_ERROR else None,
            cr2=b if code == PAGE_FAULT else None,
            origin=_origin(flags),
        )
    if kind == INTERRUPT:
        return TraceEvent("interrupts", *place, code=code, origin=_origin(flags))
    if kind == BRANCH:
        return TraceEvent("branches", *place, target=(code, a, b), instruction=code_bytes[:length])
    return TraceEvent("instructions", *place, instruction=code_bytes[:length])


def _origin(flags: int) -> str:
    if flags & lib.SIM_TRACE_NMI:
        return "nmi"
    if flags & lib.SIM_TRACE_INJECTED:
        return "injected"
    return "software" if flags & lib.SIM_TRACE_SOFTWARE else ""
