"""The devices of one machine that are not part of every PC: makes them, attaches them, and gives them their platform."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.device import Device, Platform
from pyhv.errors import HostError, PyhvError
from pyhv.log import event
from pyhv.memory import MMIO_GAP_END, MemoryBacking
from pyhv.notify import DirectMessage, Doorbell, MessageRoutes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyhv.chipset.pc import Pc
    from pyhv.device import MsrRead, MsrWrite
    from pyhv.events import HostEvents
    from pyhv.memory import MemoryRegion
    from pyhv.notify import MessageSource
    from pyhv.pci import PciBus
    from pyhv.vm import Vm

FIRST_MESSAGE_GSI, LAST_MESSAGE_GSI = 24, 1023
"""GSIs below are the I/O APIC's pins. KVM has 4096, but a change of one route has it read all of them."""


class Attached:
    """What a machine's description lists under `devices`, alive. Everything is called with the machine's lock held."""

    def __init__(self, vm: Vm, pc: Pc) -> None:
        self.devices: list[Device] = []
        self.aml: list[bytes] = []
        self.tables: list[tuple[bytes, int, bytes]] = []
        self.regions: list[MemoryRegion] = []
        self._vm = vm
        self._pc = pc
        self._events = _events(vm)
        self._routes: MessageRoutes | None = None
        if vm.backend.hypervisor.capabilities.irqfd:
            self._routes = MessageRoutes(vm.handle, FIRST_MESSAGE_GSI, LAST_MESSAGE_GSI, pc.routes_changed)
            pc.message_routes = self._routes.routes
        self._entropy: Callable[[int], bytes] | None = None
        self._above = max(MMIO_GAP_END, max((r.end for r in vm.memory.regions), default=0))

    def attach(self) -> None:
        """Make and attach all devices. What was attached is closed by `close`, also after an error."""
        platform = self.platform()
        for described in self._vm.machine.devices:
            device = described if isinstance(described, Device) else described.build()
            self.devices.append(device)
            device.attach(platform)

    def platform(self) -> Platform:
        """What devices are given."""
        pc = self._pc
        return Platform(
            ports=pc.ports,
            mmio=pc.mmio,
            memory=pc.memory,
            clock=pc.clock,
            control=pc.control,
            line=pc.line,
            send_msi=self._vm.handle.signal_msi,
            msr=self._add_msrs,
            entropy=self._random,
            events=self._events,
            doorbell=self._doorbell,
            message_source=self._message_source,
            pci_bus=self._pci,
            add_acpi=self.aml.append,
            add_acpi_table=lambda *table: self.tables.append(table),
            map_memory=self._map_memory,
        )

    def reset(self) -> None:
        """Return every device to its power-on state."""
        for device in self.devices:
            device.reset()

    def close(self) -> str:
        """Have every device give back what it took of the host; one that fails does not keep the others: what they say.

        Raises, after all that, the first exception that is a device's own mistake.
        """
        devices, self.devices = self.devices, []
        failed, mistakes = [], []
        for device in devices:
            try:
                device.close()
            except (PyhvError, OSError) as error:
                failed.append(f"{device.label}: {error}")
            except Exception as error:
                mistakes.append(error)
        if mistakes:
            raise mistakes[0]
        return "; ".join(failed)

    def _add_msrs(self, indices: Sequence[int], read: MsrRead, write: MsrWrite) -> None:
        for index in indices:
            self._vm.msr_handlers[index] = (read, write)

    def _random(self, size: int) -> bytes:
        if self._entropy is None:
            if self._vm.backend.hypervisor.capabilities.deterministic:
                from random import Random

                self._entropy = Random(f"pyhv devices {self._vm.seed}").randbytes
            else:
                from os import urandom

                self._entropy = urandom
        return self._entropy(size)

    def _doorbell(
        self,
        address: int,
        size: int,
        callback: Callable[[], None],
        *,
        pio: bool = False,
        datamatch: int | None = None,
    ) -> Doorbell | None:
        if not self._vm.backend.hypervisor.capabilities.ioeventfd:
            return None
        try:
            return Doorbell(self._vm.handle, self._events, callback, address, size, pio=pio, datamatch=datamatch)
        except HostError as error:  # the guest moved two devices to one address, or there are too many
            event("doorbell_refused", address=hex(address), error=str(error))
            return None

    def _message_source(self) -> MessageSource:
        return DirectMessage(self._vm.handle.signal_msi) if self._routes is None else self._routes.source()

    def _pci(self) -> PciBus:
        return self._pc.pci

    def _map_memory(
        self, size: int, *, alignment: int = 1 << 21, fd: int = -1, readonly: bool = False, name: str = "device"
    ) -> MemoryRegion:
        address = (self._above + alignment - 1) & -alignment
        region = self._vm.handle.add_memory(address, size, readonly=readonly, backing=MemoryBacking(file=fd), name=name)
        self._above = region.end
        self.regions.append(region)
        return region


def _events(vm: Vm) -> HostEvents:
    loop = vm.event_loop()
    if vm.backend.hypervisor.capabilities.threads:
        return loop
    from pyhv.events import TurnEvents

    return TurnEvents(loop, vm.handle.post, vm.lock)  # type: ignore[attr-defined]
