"""The closed set of reasons for which a vCPU gives control back to the VMM.

Every backend reports its exits in these types and no others. An exit that a backend does not know becomes
:class:`InternalError`, which names it and carries the registers: it is never mistaken for the guest's end.
"""

from __future__ import annotations

from pyhv.enums import Enum
from pyhv.record import field, record


@record
class PioOut:
    """An OUT or OUTS. `data` holds `count` items of `size` bytes (1, 2 or 4), little-endian."""

    port: int
    size: int
    count: int
    data: bytes


@record
class PioIn:
    """An IN or INS. The VMM answers with `Vcpu.complete_read(data)` of `size * count` bytes before the next run."""

    port: int
    size: int
    count: int


@record
class MmioWrite:
    """A store to a guest physical address that no memory backs. `len(data)` is 1 to 8."""

    address: int
    data: bytes


@record
class MmioRead:
    """A load of `size` bytes (1 to 8) that no memory backs; answered with `Vcpu.complete_read(data)`."""

    address: int
    size: int


@record
class Halt:
    """HLT with nothing pending, where the local APIC is not in the backend's kernel half (or it is the simulator)."""


@record
class Shutdown:
    """The processor shut down: a triple fault (APM vol. 2, 8.2.9)."""


class SystemEventKind(Enum):
    SHUTDOWN = "shutdown"
    RESET = "reset"
    CRASH = "crash"
    SEV_TERMINATE = "sev-terminate"
    WAKEUP = "wakeup"
    SUSPEND = "suspend"


@record
class SystemEvent:
    """The guest asked the hypervisor itself for a power event."""

    kind: SystemEventKind
    data: tuple[int, ...] = ()


@record
class Hypercall:
    """VMMCALL that the backend hands to user space; the result goes back through `Vcpu.complete_hypercall`."""

    number: int
    arguments: tuple[int, ...]


@record
class Rdmsr:
    """RDMSR of a register that is routed to user space; answered with `complete_msr(value)` or `complete_msr(None)` (#GP)."""

    index: int
    reason: str


@record
class Wrmsr:
    """WRMSR of a register that is routed to user space; answered with `complete_msr(0)` or `complete_msr(None)` (#GP)."""

    index: int
    value: int
    reason: str


@record
class Debug:
    """Guest debugging: a single step, a hardware or a software breakpoint. `rip` is linear, `dr6` as the CPU left it."""

    rip: int
    dr6: int
    dr7: int
    exception: int


@record
class MemoryFault:
    """The backend cannot make a guest page present (guest_memfd conversion, a lost mapping)."""

    address: int
    size: int
    private: bool


@record
class Interrupted:
    """The run ended without a cause in the guest: a kick, a signal, an immediate exit, the end of a quantum."""


@record
class InterruptWindow:
    """The guest can take an external interrupt now; asked for with `Vcpu.request_interrupt_window`."""


@record
class IoapicEoi:
    """The local APIC saw the EOI of a level-triggered vector that the user-space I/O APIC delivered."""

    vector: int


@record
class ApicAccess:
    """A TPR write or an MSI that the backend wants seen; informational."""

    kind: str


@record
class DirtyRingFull:
    """The vCPU's dirty ring must be harvested before it can go on."""


@record
class InternalError:
    """The backend gave up: an instruction it cannot emulate, an entry failure, or an exit it does not know.

    `name` says which; `registers` is a printable dump; `instruction` holds the bytes at RIP where they are known.
    """

    name: str
    detail: str
    registers: str = field(default="", repr=False)
    instruction: bytes = b""
    data: tuple[int, ...] = field(default=())


Exit = (
    PioOut
    | PioIn
    | MmioWrite
    | MmioRead
    | Halt
    | Shutdown
    | SystemEvent
    | Hypercall
    | Rdmsr
    | Wrmsr
    | Debug
    | MemoryFault
    | Interrupted
    | InterruptWindow
    | IoapicEoi
    | ApicAccess
    | DirtyRingFull
    | InternalError
)
