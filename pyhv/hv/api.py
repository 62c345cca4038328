"""The seam between the machine and what executes it.

`Hypervisor` makes `VmHandle`s, a `VmHandle` makes `Vcpu`s, and `Vcpu.run()` returns an `Exit`. Only the packages below
`pyhv.hv` know whether the CPU is silicon or simulated; every backend passes the kit in tests/conformance.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.hv.config import Capabilities, VmConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyhv.clock import Clock
    from pyhv.hv.exits import Exit
    from pyhv.irq import Msi
    from pyhv.memory import GuestMemory, MemoryBacking, MemoryRegion
    from pyhv.x86.registers import (
        CpuidEntry,
        DebugRegisters,
        FpuRegisters,
        GeneralRegisters,
        MpState,
        SystemRegisters,
        VcpuEvents,
    )

__all__ = ["Capabilities", "Hypervisor", "Vcpu", "VmConfig", "VmHandle"]


class Vcpu(Protocol):
    """One virtual processor. Its methods belong to the thread that runs it, but for `kick`, which any thread may call."""

    index: int

    def run(self) -> Exit:
        """Run the guest until something needs the VMM. Raises KvmError (or its like) when the backend itself fails."""
        ...

    def complete_read(self, data: bytes) -> None:
        """Answer a PioIn or MmioRead; takes effect when the vCPU runs next."""
        ...

    def complete_hypercall(self, result: int) -> None: ...

    def complete_msr(self, value: int | None) -> None:
        """Answer Rdmsr or Wrmsr; None injects #GP."""
        ...

    def kick(self) -> None:
        """Make the current or the next `run` return Interrupted soon; never lost, safe from any thread."""
        ...

    @property
    def ready_for_interrupt(self) -> bool:
        """Whether `interrupt` would be taken now (as of the last exit)."""
        ...

    request_interrupt_window: bool
    """Ask for an InterruptWindow exit as soon as the guest can take an external interrupt."""

    def interrupt(self, vector: int) -> None:
        """Inject an external (8259) interrupt; only when `ready_for_interrupt`."""
        ...

    def nmi(self) -> None: ...

    general: GeneralRegisters
    system: SystemRegisters
    fpu: FpuRegisters
    debug: DebugRegisters
    events: VcpuEvents
    mp_state: MpState
    xsave: bytes
    xcr0: int
    lapic: bytes

    def set_cpuid(self, entries: Sequence[CpuidEntry]) -> None: ...

    def get_cpuid(self) -> list[CpuidEntry]: ...

    def get_msrs(self, indices: Iterable[int]) -> dict[int, int]:
        """Read MSRs; those that the backend does not know are left out."""
        ...

    def set_msrs(self, values: Mapping[int, int]) -> None:
        """Write MSRs. Raises CapabilityMissing naming the first one that is refused."""
        ...

    def set_guest_debug(self, *, single_step: bool = False, breakpoints: Sequence[int] = ()) -> None:
        """Debug exits for single steps and for up to four hardware execution breakpoints (linear addresses)."""
        ...

    def translate(self, linear: int) -> int | None:
        """The guest physical address behind a linear one, by the vCPU's current paging; None where not mapped."""
        ...

    def reset(self) -> None:
        """The state after RESET (APM vol. 2, 14.1.3): index 0 at the reset vector, others waiting for a SIPI."""
        ...

    def dump(self) -> str:
        """The registers as text for a report, with the bytes at RIP where they can be read."""
        ...

    def close(self) -> None: ...


class VmHandle(Protocol):
    """One VM of a backend."""

    memory: GuestMemory

    @property
    def clock(self) -> Clock | None:
        """The backend's own clock, or None where real time is right."""
        ...

    def add_memory(
        self, address: int, size: int, *, readonly: bool = False, backing: MemoryBacking | None = None, name: str = "ram"
    ) -> MemoryRegion:
        """Back [address, address + size) with fresh zeroed memory; 4 KiB multiples. Raises ConfigError or HostError."""
        ...

    def remove_memory(self, region: MemoryRegion) -> None: ...

    def create_vcpu(self, index: int) -> Vcpu:
        """Make vCPU `index` (its APIC id), with the CPUID of the VmConfig's template already set."""
        ...

    def reset(self) -> None:
        """What the VM has besides its vCPUs and its memory, such as an in-backend irqchip, is as it was at first."""
        ...

    def signal_msi(self, message: Msi) -> None:
        """Deliver a message to the local APICs."""
        ...

    def set_irq_line(self, gsi: int, level: bool) -> None:
        """Drive a GSI of an in-backend irqchip ("kernel" only)."""
        ...

    def set_gsi_routes(self, routes: Mapping[int, Msi]) -> None:
        """Replace the message routes of GSIs: for irqfd, and for the EOI exits of level-triggered I/O APIC pins (0-23)."""
        ...

    def add_irqfd(self, fd: int, gsi: int) -> None: ...

    def remove_irqfd(self, fd: int, gsi: int) -> None: ...

    def add_ioeventfd(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None:
        """Signal `fd` on guest writes of `size` bytes (0: any size) to the address instead of an exit."""
        ...

    def remove_ioeventfd(self, fd: int, address: int, size: int, *, pio: bool, datamatch: int | None = None) -> None: ...

    def set_dirty_logging(self, region: MemoryRegion, enabled: bool) -> None: ...

    def dirty_pages(self, region: MemoryRegion, *, clear: bool = True) -> list[int]:
        """Guest physical page addresses written since the last call (a superset is allowed), rising."""
        ...

    def filter_msrs(self, indices: Iterable[int], *, read: bool = True, write: bool = True) -> None:
        """Route these MSRs to user space as Rdmsr and Wrmsr exits; replaces earlier filters."""
        ...

    def statistics(self) -> dict[str, int]:
        """The backend's own counters by name."""
        ...

    def pace(self, real: bool) -> None:
        """With `real`, a backend of virtual time lets idle time pass as fast as real time: it waits for somebody outside."""
        ...

    def idle(self) -> bool:
        """Backends without threads: every vCPU halts, so let time pass up to the next event; False when none will come."""
        ...

    def instructions(self) -> int | None:
        """Guest instructions retired, where the backend counts them."""
        ...

    def avic(self) -> tuple[bool | None, str]:
        """Whether AVIC (APM vol. 2, 15.29) can accelerate this VM's interrupts, None where unknown; and why."""
        ...

    def close(self) -> None:
        """Give everything back; idempotent."""
        ...


class Hypervisor(Protocol):
    """A backend."""

    name: str

    @property
    def capabilities(self) -> Capabilities: ...

    def create_vm(self, config: VmConfig) -> VmHandle: ...

    def close(self) -> None: ...
