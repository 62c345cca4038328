"""One simulated machine: its host memory, nested tables, time, and how its vCPUs take turns."""

from __future__ import annotations

from time import monotonic_ns

from pyhv._builtin import deque, get_ident, partial
from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, HostError
from pyhv.hv.sim import msrs, stats
from pyhv.hv.sim.clock import APIC_HZ, DEVICE_TICKS, TICKS_PER_INSTRUCTION, TSC_HZ, VirtualClock
from pyhv.hv.sim.frames import WINDOW, HostMemory
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.npt import NestedTables
from pyhv.hv.sim.registers import ASID
from pyhv.hv.sim.vcpu import SimVcpu
from pyhv.locks import allocate_lock
from pyhv.memory import PAGE_SIZE, GuestMemory, MemoryBacking

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from pyhv.hv.api import VmConfig
    from pyhv.hv.sim.hypervisor import SimHypervisor
    from pyhv.hv.sim.trace import SimTrace
    from pyhv.irq import Msi
    from pyhv.memory import MemoryRegion
    from pyhv.trace import Take

QUANTUM = 10_000
"""Instructions of a vCPU's turn while others wait for theirs."""
LONG_TURN = 5_000_000
"""Instructions that one run of the silicon takes at most, so that signals and other threads get through."""
NEVER = (1 << 64) - 1
IOPM_SIZE = 3 * PAGE_SIZE


class SimVm:
    """See `pyhv.hv.api.VmHandle`.

    Time is counted in ticks of the machine's time stamp counter, one for all vCPUs: while one runs, it passes for all.
    """

    def __init__(self, hypervisor: SimHypervisor, config: VmConfig) -> None:
        self.hypervisor = hypervisor
        self.config = config
        self.memory = GuestMemory()
        self.clock = VirtualClock(config.lock)
        self.vcpus: dict[int, SimVcpu] = {}
        self.owner = 0
        """The thread that runs vCPUs: only it may call into the silicon while they run."""
        self.inbox: deque[Callable[[], object]] = deque()
        self.on_call: Callable[[], None] | None = None
        """Told when another thread has put something into the inbox: all vCPUs may be asleep."""
        self.native_lock = allocate_lock()
        self.msr_reads: frozenset[int] = frozenset()
        self.msr_writes: frozenset[int] = frozenset()
        self.hypercall_exits: frozenset[int] = frozenset()
        self.msr_value = ffi.new("uint64_t *")
        self.takes_turns = config.vcpus > 1
        self.bare = "+svm" in config.features
        """Whether the guest has the processors to itself, without an outer VMRUN."""
        self.native: Any = None
        self._now = 0
        self._charged = False
        self._sleepers_deadline = NEVER
        self._message_sent = False
        self._dirty: dict[int, bytearray] = {}
        self._open_bus = 0
        self.paced = False
        """Whether idle time passes at the speed of real time."""
        self._sleep: Callable[[float], None] | None = None
        self._final: tuple[int, list[tuple[Any, Any, int]]] | None = None
        self._trace: SimTrace | None = None
        self.host = HostMemory(on_discard=self._discarded)
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def _set_up(self) -> None:
        host, config = self.host, self.config
        self.native = lib.sim_machine_new(
            ffi.cast("uint8_t *", host.pointer), WINDOW, config.vcpus, config.seed & NEVER
        )
        if self.native == ffi.NULL:
            self.native = None
            raise HostError("the simulated machine: out of memory")
        lib.sim_set_time(self.native, TSC_HZ, TICKS_PER_INSTRUCTION, APIC_HZ)
        entries, count = self.hypervisor.host_cpuid(config)
        lib.sim_set_cpuid(self.native, entries, count)
        self.tables = NestedTables(host)
        self.iopm = host.frames(IOPM_SIZE // PAGE_SIZE)
        host.view[self.iopm : self.iopm + IOPM_SIZE] = b"\xff" * IOPM_SIZE
        self.msrpm = host.frames(msrs.PERMISSION_MAP_SIZE // PAGE_SIZE)
        self._write_msrpm(msrs.permission_map(config.irqchip != "none"))
        self.memory.observe_writes(self._vmm_wrote)

    def _write_msrpm(self, bitmap: bytes | bytearray) -> None:
        self.host.view[self.msrpm : self.msrpm + len(bitmap)] = bitmap

    # Calls from other threads

    def call(self, function: Callable[[], object]) -> None:
        """Do something to the silicon: at once on the thread that runs it, else before it runs next."""
        if self.owner in (0, get_ident()):
            function()
            return
        self.inbox.append(function)
        self._interrupt_owner()

    def post(self, function: Callable[[], None]) -> None:
        """Call a function on the thread that runs vCPUs, before one runs next and not from within this call."""
        self.inbox.append(function)
        if self.owner != get_ident():
            self._interrupt_owner()

    def stop_silicon(self) -> None:
        """Have whichever CPU runs come back soon, and see whether another is to run. Any thread."""
        self._message_sent = True
        with self.native_lock:
            for vcpu in self.vcpus.values():
                if vcpu.native is not None:
                    lib.sim_stop_request(vcpu.native)

    def _interrupt_owner(self) -> None:
        self.stop_silicon()
        if self.on_call is not None:
            self.on_call()

    def drain(self) -> None:
        """Do what was asked for up to now."""
        for _ in range(len(self.inbox)):
            self.inbox.popleft()()

    # Memory

    def add_memory(
        self, address: int, size: int, *, readonly: bool = False, backing: MemoryBacking | None = None, name: str = "ram"
    ) -> MemoryRegion:
        region = self.host.allocate(address, size, backing or MemoryBacking(), name=name, readonly=readonly)
        try:
            self.memory.add(region)
        except ConfigError:
            region.close()
            raise
        pa = self.host.physical(region)
        if not self.bare:
            self.tables.map(address, pa, size, writable=not readonly)
        elif lib.sim_map_ram(self.native, address, size, pa, int(readonly)):
            self.memory.remove(region)
            region.close()
            raise CapabilityMissing("memory: with +svm the simulated machine has room for 16 regions")
        return region

    def remove_memory(self, region: MemoryRegion) -> None:
        self._check(region)
        self._needs_tables("memory cannot be removed")
        self.memory.remove(region)
        self._dirty.pop(id(region), None)
        pa = self.host.physical(region)
        lib.sim_host_wrote(self.native, pa, region.size)
        self._remap()
        region.close()

    def _check(self, region: MemoryRegion) -> None:
        if not any(region is r for r in self.memory.regions):
            raise ConfigError(f"memory region {region.name} at {region.address:#x} is not of this VM")

    def _needs_tables(self, what: str) -> None:
        if self.bare:
            raise CapabilityMissing(f"with +svm there are no nested tables below the guest: {what}")

    def _remap(self) -> None:
        """Build the nested tables anew."""
        for vcpu in self.vcpus.values():
            vcpu.leave_guest()
        self.tables.clear()
        for region in self.memory.regions:
            self.tables.map(
                region.address,
                self.host.physical(region),
                region.size,
                writable=not region.readonly,
                small=id(region) in self._dirty,
            )
        self._flush()

    def _flush(self) -> None:
        for vcpu in self.vcpus.values():
            lib.sim_tlb_flush(vcpu.native, ASID)

    def _vmm_wrote(self, address: int, length: int) -> None:
        end = address + length
        while address < end:
            region = self.memory.find(address)
            if region is None:
                return
            stop = min(end, region.end)
            at, size = address - region.address, stop - address
            pa = self.host.physical(region) + at
            if self.owner in (0, get_ident()):
                lib.sim_host_wrote(self.native, pa, size)
            else:
                self.inbox.append(partial(lib.sim_host_wrote, self.native, pa, size))
            bitmap = self._dirty.get(id(region))
            if bitmap is not None:
                for page in range(at // PAGE_SIZE, (at + size - 1) // PAGE_SIZE + 1):
                    bitmap[page] = 1
            address = stop

    def _discarded(self, pa: int, size: int) -> None:
        """Memory is all zeros now: what was decoded from it is not there any more."""
        if self.native is not None:
            self.call(partial(lib.sim_host_wrote, self.native, pa, size))

    def open_bus(self) -> int:
        """A frame of all ones, filled again on each call."""
        if not self._open_bus:
            self._open_bus = self.host.frames(1)
        self.host.page(self._open_bus)[:] = b"\xff" * PAGE_SIZE
        lib.sim_host_wrote(self.native, self._open_bus, PAGE_SIZE)
        return self._open_bus

    def set_dirty_logging(self, region: MemoryRegion, enabled: bool) -> None:
        self._check(region)
        self._needs_tables("there is no dirty log")
        if enabled == (id(region) in self._dirty):
            return
        self._collect()
        if enabled:
            self._dirty[id(region)] = bytearray(region.size // PAGE_SIZE)
        else:
            del self._dirty[id(region)]
        self._remap()

    def _collect(self) -> None:
        """Take the dirty bits of the nested tables over, for all regions that are logged."""
        for region in self.memory.regions:
            bitmap = self._dirty.get(id(region))
            if bitmap is not None:
                for page in self.tables.take_dirty(region.address, region.size):
                    bitmap[(page - region.address) // PAGE_SIZE] = 1
        self._flush()

    def dirty_pages(self, region: MemoryRegion, *, clear: bool = True) -> list[int]:
        """Guest physical page addresses written since the last call that cleared, exact."""
        self._check(region)
        bitmap = self._dirty.get(id(region))
        if bitmap is None:
            raise ConfigError(f"memory region {region.name} at {region.address:#x} is not dirty-logged")
        self._collect()
        pages = [region.address + i * PAGE_SIZE for i, dirty in enumerate(bitmap) if dirty]
        if clear:
            bitmap[:] = bytes(len(bitmap))
        return pages

    # Processors

    def create_vcpu(self, index: int) -> SimVcpu:
        if index in self.vcpus or not 0 <= index < self.config.vcpus:
            raise ConfigError(f"vCPU {index} exists already or is not below {self.config.vcpus}")
        entries = self.hypervisor.guest_cpuid(self.config, index)
        if self.bare:
            from pyhv.hv.sim.bare import BareVcpu

            vcpu: SimVcpu = BareVcpu(self, index, entries)
        else:
            vcpu = SimVcpu(self, index, entries)
        self.vcpus[index] = vcpu
        return vcpu

    def reset(self) -> None:
        """Nothing: interrupt controllers are Python's."""

    def signal_msi(self, message: Msi) -> None:
        self.call(partial(self._deliver, message.address, message.data))

    def send_nmi(self, cpu: Any) -> None:
        """Raise a processor's NMI."""
        self.call(partial(self._raise_nmi, cpu))

    def _raise_nmi(self, cpu: Any) -> None:
        self._message_sent = True
        lib.sim_nmi(cpu)

    def _deliver(self, address: int, data: int) -> None:
        self._message_sent = True
        lib.sim_msi(self.native, address, data)

    def set_irq_line(self, gsi: int, level: bool) -> None:
        raise CapabilityMissing("the simulated machine's interrupt controllers are Python's; it has no lines of its own")

    def set_gsi_routes(self, routes: Mapping[int, Msi]) -> None:
        """Nothing to prepare: every EOI of a level-triggered vector is reported."""

    def add_irqfd(self, fd: int, gsi: int) -> None:
        raise CapabilityMissing("the simulated machine has no irqfd")

    def remove_irqfd(self, fd: int, gsi: int) -> None:
        raise CapabilityMissing("the simulated machine has no irqfd")

    def add_ioeventfd(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        raise CapabilityMissing("the simulated machine has no ioeventfd")

    def remove_ioeventfd(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        raise CapabilityMissing("the simulated machine has no ioeventfd")

    def filter_msrs(self, indices: Iterable[int], *, read: bool = True, write: bool = True) -> None:
        self._needs_tables("MSRs are the silicon's")
        wanted = frozenset(indices)
        for index in wanted:
            if not 0 <= index < 1 << 32:
                raise ConfigError(f"MSR {index:#x}: indices are 32-bit numbers")
            if index in msrs.X2APIC:
                raise ConfigError(f"MSR {index:#x}: the x2APIC's registers cannot be filtered")
        self.msr_reads = wanted if read else frozenset()
        self.msr_writes = wanted if write else frozenset()
        bitmap = bytearray(msrs.permission_map(self.config.irqchip != "none"))
        for index in wanted:
            if index in msrs.DIRECT:
                msrs.open_for(bitmap, index, exits=read | write << 1)
        self._write_msrpm(bitmap)

    # Time and turns

    def enter(self, vcpu: SimVcpu) -> int:
        """Bring a CPU's clock to the machine's before it runs; the machine's time."""
        if self.takes_turns or self._charged:
            self._charged = False
            lib.sim_idle_to(vcpu.native, self._now)
        return self._now

    def charge(self) -> None:
        """A device is accessed, which takes time."""
        self._now += DEVICE_TICKS
        self._charged = True
        self.clock.advance_to(self._now)

    def leave(self, tsc: int, before: int) -> int:
        """A CPU has run to `tsc`: let the machine's time follow; instructions that it retired."""
        self._now = max(self._now, tsc)
        self.clock.advance_to(self._now)
        if self._trace is not None:
            self._trace.drain()
        return (tsc - before) // TICKS_PER_INSTRUCTION

    def quantum(self, vcpu: SimVcpu) -> int:
        """Instructions that a vCPU's turn has."""
        if not self.takes_turns:
            return LONG_TURN
        others = [other for other in self.vcpus.values() if other is not vcpu]
        if any(not other.sleeping or self._rouses(other) for other in others):
            return QUANTUM
        self._sleepers_deadline = self._apic_deadline(others)
        self._message_sent = False
        return LONG_TURN

    def budget(self, turn: int) -> int:
        """Instructions to run at most: until the turn is over, or the next event of a device or another CPU's timer."""
        deadline = self.clock.next_deadline()
        if self.takes_turns and turn > QUANTUM:
            others = self._sleepers_deadline
            deadline = others if deadline is None else min(others, deadline)
        if deadline is None:
            return turn
        left = (deadline - self._now + TICKS_PER_INSTRUCTION - 1) // TICKS_PER_INSTRUCTION
        return min(turn, max(left, 1))

    def cuts_turn(self, vcpu: SimVcpu, turn: int) -> bool:
        """Whether a sleeping CPU has something to wake for by now, which ends another's long turn."""
        if turn <= QUANTUM or not (self._message_sent or self._now >= self._sleepers_deadline) or not self.takes_turns:
            return False
        others = [other for other in self.vcpus.values() if other is not vcpu]
        if any(self._rouses(other) for other in others):
            return True
        self._sleepers_deadline = self._apic_deadline(others)
        self._message_sent = False
        return False

    def attend(self, vcpu: SimVcpu, turn: int) -> bool:
        """The silicon stopped because somebody outside asked for it: do what for; whether that cuts the turn."""
        self.drain()
        self._message_sent = True
        return self.cuts_turn(vcpu, turn)

    def _rouses(self, sleeper: SimVcpu) -> bool:
        """Whether there is something by now for which a sleeping CPU is to run."""
        lib.sim_idle_to(sleeper.native, self._now)
        return sleeper.kicked or bool(lib.sim_cpu_wakes(sleeper.native))

    def _apic_deadline(self, vcpus: Iterable[SimVcpu]) -> int:
        return min((int(lib.sim_lapic_deadline(vcpu.native)) for vcpu in vcpus), default=NEVER)

    def skip_idle(self) -> bool:
        """Let time pass up to the next event of a device or a local APIC's timer; False when none will come.

        A paced machine's time goes on also when only somebody outside can wake it.
        """
        if self.inbox:
            self.drain()
            return True
        device, timer = self.clock.next_deadline(), self._apic_deadline(self.vcpus.values())
        target = timer if device is None else min(device, timer)
        if self._sleep is not None:
            target = min(target, self._now + self._sleep_for(self._sleep, target - self._now))
        elif target >= NEVER:
            return False
        self._now = max(self._now, target)
        for vcpu in self.vcpus.values():
            lib.sim_idle_to(vcpu.native, self._now)
        self.clock.advance_to(self._now)
        return True

    def _sleep_for(self, sleep: Callable[[float], None], ticks: int) -> int:
        """Let real time pass until something happens, at most `ticks` nanoseconds; how many did."""
        if ticks <= 0:
            return 0
        began = monotonic_ns()
        sleep(ticks / TSC_HZ)
        return monotonic_ns() - began

    def idle(self) -> bool:
        return self.skip_idle()

    def pace(self, real: bool) -> None:
        """See `pyhv.hv.api.VmHandle.pace`."""
        self.paced = real

    def sleep_by(self, sleep: Callable[[float], None] | None) -> None:
        """How the thread that runs the vCPUs waits, for at most so many seconds, while a paced machine is idle."""
        self._sleep = sleep if self.paced else None

    # What it did

    def trace(self, kinds: frozenset[str], low: int, high: int, take: Take) -> None:
        """See `pyhv.trace.Traced`. Replaces an earlier trace."""
        from pyhv.hv.sim.trace import SimTrace

        self._trace = SimTrace(self.native, kinds, low, high, take)

    def instructions(self) -> int | None:
        if self._final is not None:
            return self._final[0]
        return sum(int(lib.sim_icount(vcpu.native)) for vcpu in self.vcpus.values())

    def statistics(self) -> dict[str, int]:
        """The silicon's counters, summed up over the CPUs."""
        if self._final is not None:
            return stats.summed(self._final[1])
        return stats.summed(self._counters())

    def _counters(self) -> list[tuple[Any, Any, int]]:
        return stats.take(vcpu.native for vcpu in self.vcpus.values())

    def avic(self) -> tuple[bool | None, str]:
        return False, "the simulated machine answers local APIC accesses in its host; AVIC is not simulated yet"

    def close(self) -> None:
        """Give the machine and its memory back; idempotent."""
        if self.native is None:
            return
        self._final = (self.instructions() or 0, self._counters())
        if self._trace is not None:
            self._trace.stop()
            self._trace = None
        with self.native_lock:
            for vcpu in self.vcpus.values():
                vcpu.forget()
            native, self.native = self.native, None
        for region in self.memory.regions:
            self.memory.remove(region)
            region.close()
        lib.sim_machine_free(native)
        self.host.close()
