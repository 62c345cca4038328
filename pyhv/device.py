"""Devices that users write themselves, as Python objects inside a test.

    class Doorbell(pyhv.MmioDevice):
        address = 0xD000_0000
        length = 0x1000
        rings = 0

        def write(self, offset, size, value):
            self.rings += 1

Pass an instance in `Machine(devices=[...])`. Calls come one at a time (the machine's lock is held), with checked widths;
`self.platform` gives memory, clock, interrupt lines and messages. An exception ends the run as a VMM error that carries it.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import ClassVar

    from pyhv.bus import AddressSpace
    from pyhv.clock import Clock
    from pyhv.control import MachineControl
    from pyhv.events import HostEvents
    from pyhv.irq import InterruptLine, Msi
    from pyhv.memory import GuestMemory, MemoryRegion
    from pyhv.notify import Doorbell, MessageSource
    from pyhv.pci import PciBus

    MsrRead = Callable[[int], int | None]
    MsrWrite = Callable[[int, int], bool]


class MakeDoorbell(Protocol):
    """Platform.doorbell."""

    def __call__(
        self,
        address: int,
        size: int,
        callback: Callable[[], None],
        *,
        pio: bool = False,
        datamatch: int | None = None,
    ) -> Doorbell | None: ...


class MapMemory(Protocol):
    """Platform.map_memory."""

    def __call__(
        self, size: int, *, alignment: int = 1 << 21, fd: int = -1, readonly: bool = False, name: str = "device"
    ) -> MemoryRegion: ...


@record
class Platform:
    """What a device is given when it is attached.

    - `ports`, `mmio`: the address spaces to claim from; `memory`: the guest's RAM.
    - `line(gsi)`: a new source on a GSI (0 to 23); `send_msi(message)`: a message to the local APICs.
    - `msr(indices, read, write)`: take over MSRs; `read` gives None and `write` False for #GP.
    - `entropy(n)`: random bytes; the machine's seed decides them on a deterministic backend.
    - `events`: the host's descriptors, and calls from other threads.
    - `doorbell(address, size, callback, pio=, datamatch=)`: guest writes of `size` bytes that call back without an exit; None
      where the backend has none: they arrive at the bus, as they also do there for what does not match.
    - `message_source()`: an MSI of the device's own, by irqfd where there is one.
    - `pci`: the PCI bus, made on first use.
    - `add_acpi(aml)`: a node for \\_SB in the DSDT; `add_acpi_table(signature, revision, body)`: a table. In `attach` only.
    - `map_memory(size, alignment=, fd=, readonly=, name=)`: guest physical memory above the RAM, in `attach` only. With `fd`
      it is that file's, shared, where `region.fd` is not -1; otherwise it is fresh memory for the device to fill.
    """

    ports: AddressSpace
    mmio: AddressSpace
    memory: GuestMemory
    clock: Clock
    control: MachineControl
    line: Callable[[int], InterruptLine]
    send_msi: Callable[[Msi], None]
    msr: Callable[[Sequence[int], MsrRead, MsrWrite], None]
    entropy: Callable[[int], bytes]
    events: HostEvents
    doorbell: MakeDoorbell
    message_source: Callable[[], MessageSource]
    pci_bus: Callable[[], PciBus]
    add_acpi: Callable[[bytes], None]
    add_acpi_table: Callable[[bytes, int, bytes], None]
    map_memory: MapMemory

    @property
    def pci(self) -> PciBus:
        """The machine's PCI bus."""
        return self.pci_bus()


class Device:
    """The base: override `attach` to claim addresses, `reset` to forget state, `close` to give back what the host lent.

    `live`: it takes input from outside at times of its own (a network, a person); such a machine is not deterministic, and
    a simulated one lets its idle time pass at real speed.
    """

    name: ClassVar[str] = ""
    live: bool = False
    platform: Platform

    def attach(self, platform: Platform) -> None:
        """Become part of a machine that is being built."""
        self.platform = platform

    def reset(self) -> None:
        """Return to the power-on state."""

    def close(self) -> None:
        """The machine has ended: give back descriptors and files. Called once for each `attach`, also after errors."""

    @property
    def label(self) -> str:
        """The device's name in messages."""
        return self.name or type(self).__name__


class _IoDevice(Device):
    length: int = 4
    width: int = 8

    def read(self, offset: int, size: int) -> int:
        """The value at `offset`; all ones unless overridden."""
        return (1 << (8 * size)) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A store; ignored unless overridden."""


class MmioDevice(_IoDevice):
    """`length` bytes of guest physical address space at `address`; accesses of 1, 2, 4 or 8 bytes, at most `width`."""

    address: int = 0

    def attach(self, platform: Platform) -> None:
        super().attach(platform)
        platform.mmio.map(self.address, self.length, self, self.label, self.width)


class PioDevice(_IoDevice):
    """`length` ports from `port`; accesses of 1, 2 or 4 bytes, at most `width`."""

    port: int = 0
    width: int = 4

    def attach(self, platform: Platform) -> None:
        super().attach(platform)
        platform.ports.map(self.port, self.length, self, self.label, self.width)


class MsrDevice(Device):
    """Model-specific registers answered by the test: `indices` go to `rdmsr` and `wrmsr`."""

    indices: Sequence[int] = ()

    def attach(self, platform: Platform) -> None:
        super().attach(platform)
        platform.msr(self.indices, self.rdmsr, self.wrmsr)

    def rdmsr(self, index: int) -> int | None:
        """The value, or None for #GP."""
        return None

    def wrmsr(self, index: int, value: int) -> bool:
        """Whether the write is taken; False gives #GP."""
        return False
