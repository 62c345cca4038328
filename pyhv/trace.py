"""A trace: what a machine's processors do, event by event.

    with pyhv.Vm(machine, backend="sim") as vm:
        tracer = vm.trace(("exceptions", "interrupts"), limit=1000)
        vm.run(timeout=10)
    print("\\n".join(tracer.lines()))

The simulator traces all of KINDS, exactly and without changing what the guest sees. KVM shows the exits to this program.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.locks import allocate_lock
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pyhv.boot.symbols import SymbolTable
    from pyhv.hv.api import Vcpu
    from pyhv.hv.exits import Exit
    from pyhv.runner import VcpuLoop
    from pyhv.vm import Vm
    from pyhv.x86.registers import SystemRegisters

    Take = Callable[[int, Callable[[], Iterator["TraceEvent"]]], None]
    """Told of so many events, and what decodes them."""

KINDS = ("exits", "exceptions", "interrupts", "branches", "instructions")
DEFAULT_LIMIT = 100_000
EVERYWHERE = (0, (1 << 64) - 1)
EFER_LMA, FLAG_VM = 1 << 10, 1 << 17


@record(frozen=True)
class TraceEvent:
    """One event; what a kind does not have is None or empty.

    - `kind`: one of KINDS. `vcpu`: the processor's index; `instructions`: how many it had retired (None on KVM).
    - `mode`: real, v86, 16, 32, compat or 64; `cpl`; `cs` and `rip`; `address`: the linear address that they make.
    - `name`: an exit's name as in the manual (on KVM the exit's type), an exception's mnemonic.
    - `code`: the exit code, or the vector. `info`: EXITINFO1 and EXITINFO2 (APM vol. 2, 15.6).
    - `error`: an exception's error code; `cr2`: the address of a page fault. `origin`: injected, software or nmi.
    - `target`: (CS, RIP, linear address) after a branch. `instruction`: its bytes.
    - `detail`: an exit's other contents, on KVM.
    """

    kind: str
    vcpu: int
    instructions: int | None
    mode: str
    cpl: int
    cs: int
    rip: int
    address: int
    name: str = ""
    code: int | None = None
    info: tuple[int, int] | None = None
    error: int | None = None
    cr2: int | None = None
    origin: str = ""
    target: tuple[int, int, int] | None = None
    instruction: bytes = b""
    detail: str = ""

    def text(self, symbols: SymbolTable | None = None) -> str:
        """The event as a line; `symbols` gives addresses names."""
        count = "-" if self.instructions is None else str(self.instructions)
        where = _place(self.mode, self.cs, self.rip, self.address, symbols)
        return f"{count:>10} cpu{self.vcpu} {self.cpl}/{self.mode:<6} {where:<42} {self._what(symbols)}".rstrip()

    def _what(self, symbols: SymbolTable | None) -> str:
        if self.kind == "exits":
            if self.info is None:
                return f"exit {self.detail or self.name}"
            return f"exit {self.name} info1={self.info[0]:#x} info2={self.info[1]:#x}"
        if self.kind == "exceptions":
            words = ["exception", self.name]
            words += [f"error={self.error:#x}"] if self.error is not None else []
            words += [f"cr2={self.cr2:#x}"] if self.cr2 is not None else []
            return " ".join(words + ([self.origin] if self.origin else []))
        if self.kind == "interrupts":
            return f"interrupt {self.code:#04x} {self.origin}"
        if self.kind == "branches" and self.target is not None:
            cs, rip, address = self.target
            return f"branch -> {_place(self.mode, cs, rip, address, symbols)}"
        return f"instruction {self.instruction.hex(' ')}"


def _place(mode: str, cs: int, rip: int, address: int, symbols: SymbolTable | None) -> str:
    where = f"{cs:04x}:{rip:04x}" if mode in ("real", "v86") else f"{rip:016x}" if mode == "64" else f"{rip:08x}"
    found = symbols.lookup(address) if symbols is not None else None
    if found is None:
        return where
    name, offset = found
    return f"{where} {name}+{offset:#x}" if offset else f"{where} {name}"


class Traced(Protocol):
    """A VmHandle whose processors can be traced."""

    def trace(self, kinds: frozenset[str], low: int, high: int, take: Take) -> None:
        """Tell `take` whenever there are events between the two linear addresses."""
        ...


class Tracer:
    """What is being traced; made by `Vm.trace`. `dropped`: events beyond `limit`, which are only counted."""

    def __init__(
        self,
        vm: Vm,
        what: Iterable[str] = ("exits",),
        *,
        address: tuple[int, int] = EVERYWHERE,
        limit: int = DEFAULT_LIMIT,
        sink: Callable[[TraceEvent], None] | None = None,
    ) -> None:
        kinds = _kinds(what)
        low, high = address
        if not 0 <= low <= high <= EVERYWHERE[1]:
            raise ConfigError(f"address: {low:#x}-{high:#x} is not a range of 64-bit addresses")
        if limit < 0:
            raise ConfigError(f"limit: {limit} is not a number of events")
        self.events: list[TraceEvent] = []
        """The events so far, unless a sink takes them."""
        self.dropped = 0
        self.taken = 0
        self._limit = limit
        self._low, self._high = low, high
        self._sink = self.events.append if sink is None else sink
        self._lock = allocate_lock()
        trace = getattr(vm.handle, "trace", None)
        if trace is not None:
            trace(kinds, low, high, self._take)
            return
        missing = [kind for kind in KINDS if kind in kinds and kind != "exits"]
        if missing:
            raise CapabilityMissing(
                f"what: {', '.join(missing)}: on {vm.backend.name} only exits can be traced; "
                "the simulator traces everything (--backend sim)"
            )
        for loop in vm.loops:
            self._observe(loop)

    def lines(self, symbols: SymbolTable | None = None) -> Iterator[str]:
        """The collected events as text, and how many there were."""
        for event in self.events:
            yield event.text(symbols)
        yield self.summary()

    def summary(self) -> str:
        """How many events were shown and dropped."""
        return f"# {self.taken} events" + (f", {self.dropped} more dropped" if self.dropped else "")

    def _take(self, count: int, events: Callable[[], Iterator[TraceEvent]]) -> None:
        room = self._limit - self.taken
        if room > 0:
            for event in events():
                if room == 0:
                    break
                room -= 1
                self.taken += 1
                count -= 1
                self._sink(event)
        self.dropped += count

    def _observe(self, loop: VcpuLoop) -> None:
        run = loop.run_raw

        def observed() -> Exit:
            exit = run()
            with self._lock:
                self._add_exit(loop.vcpu, exit)
            return exit

        loop.run_raw = observed  # type: ignore[method-assign]

    def _add_exit(self, vcpu: Vcpu, exit: Exit) -> None:
        if self._low == 0 and self._high == EVERYWHERE[1] and self.taken >= self._limit:
            self.dropped += 1
            return
        event = exit_event(vcpu, exit)
        if self._low <= event.address <= self._high:
            self._take(1, lambda: iter((event,)))


def exit_event(vcpu: Vcpu, exit: Exit) -> TraceEvent:
    """An exit to this program, where the vCPU stands now."""
    general, system = vcpu.general, vcpu.system
    mode = _mode(system, general.rflags)
    address = general.rip if mode == "64" else system.cs.base + general.rip & 0xFFFF_FFFF
    return TraceEvent(
        "exits",
        vcpu.index,
        None,
        mode,
        3 if mode == "v86" else 0 if mode == "real" else system.ss.dpl,
        system.cs.selector,
        general.rip,
        address,
        name=type(exit).__name__,
        detail=repr(exit),
    )


def _mode(system: SystemRegisters, rflags: int) -> str:
    if not system.cr0 & 1:
        return "real"
    if rflags & FLAG_VM:
        return "v86"
    if system.efer & EFER_LMA:
        return "64" if system.cs.l else "compat"
    return "32" if system.cs.db else "16"


def _kinds(what: Iterable[str]) -> frozenset[str]:
    kinds = frozenset((what,) if isinstance(what, str) else what)
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"what: {kind!r} is not one of {', '.join(KINDS)}")
    if not kinds:
        raise ConfigError(f"what: nothing is to be traced; there are {', '.join(KINDS)}")
    return kinds
