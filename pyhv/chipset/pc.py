"""The PC that a Machine describes: its address spaces, its chipset, and how its interrupt wires run."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.bus import mmio_space, port_space
from pyhv.chipset import layout
from pyhv.chipset.acpi_pm import AcpiPm
from pyhv.chipset.bochs_console import BochsConsole
from pyhv.chipset.debug_exit import DebugExit
from pyhv.chipset.fw_cfg import FwCfg
from pyhv.chipset.gsi import GsiRouter
from pyhv.chipset.i8042 import I8042
from pyhv.chipset.ioapic import IoApic
from pyhv.chipset.pic import Pic
from pyhv.chipset.pit import Pit
from pyhv.chipset.post import PostPorts
from pyhv.chipset.pvpanic import Pvpanic
from pyhv.chipset.reset_control import ResetControl
from pyhv.chipset.rtc import Rtc
from pyhv.chipset.serial import Serial
from pyhv.chipset.testdev import TestDevice
from pyhv.device import Platform
from pyhv.irq import SharedLine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyhv.bus import AddressSpace
    from pyhv.clock import Clock
    from pyhv.control import MachineControl
    from pyhv.device import MsrRead, MsrWrite
    from pyhv.hv.api import VmHandle
    from pyhv.irq import InterruptLine
    from pyhv.machine import Machine
    from pyhv.memory import GuestMemory

MAX_REPORTED = 32
"""Unclaimed addresses that a Result lists, the most used first."""


class ChipsetDevice(Protocol):
    """What every device of the chipset offers."""

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None: ...

    def reset(self) -> None: ...


class Pc:
    """The devices of one machine; everything here is called with the machine's lock held."""

    def __init__(
        self,
        machine: Machine,
        *,
        memory: GuestMemory,
        clock: Clock,
        control: MachineControl,
        handle: VmHandle,
        output: Callable[[bytes], None],
        kick: Callable[[], None],
        add_msrs: Callable[[Sequence[int], MsrRead, MsrWrite], None],
    ) -> None:
        self.ports = port_space()
        self.mmio = mmio_space()
        self.pic: Pic | None = None
        self.ioapic: IoApic | None = None
        self._handle = handle
        self._kick = kick
        self._devices: list[ChipsetDevice] = []
        line = self._kernel_lines() if machine.irqchip == "kernel" else self._split_irqchip(clock)
        self.serial = Serial(output=output, irq=line(layout.COM_IRQS[layout.COM1]), clock=clock)
        self.fw_cfg = FwCfg(memory=memory, cpus=machine.cpus)
        self.acpi_pm = AcpiPm(clock=clock, control=control, sci=line(layout.SCI_IRQ))
        self._devices += [
            self.serial,
            Rtc(clock=clock, irq=line(layout.RTC_IRQ), ram_size=machine.memory),
            self.acpi_pm,
            I8042(control=control, keyboard_irq=line(1), aux_irq=line(12)),
            ResetControl(control=control),
            Pvpanic(control=control),
            BochsConsole(output=output),
            PostPorts(),
            TestDevice(line=line, send_msi=handle.signal_msi),
            self.fw_cfg,
        ]
        if machine.debug_exit is not None:
            self._devices.append(DebugExit(control=control, port=machine.debug_exit))
        for device in self._devices:
            device.attach(self.ports, self.mmio)
        platform = Platform(
            ports=self.ports,
            mmio=self.mmio,
            memory=memory,
            clock=clock,
            control=control,
            line=line,
            send_msi=handle.signal_msi,
            msr=add_msrs,
        )
        self._user_devices = machine.devices
        for user_device in machine.devices:
            user_device.attach(platform)

    def _split_irqchip(self, clock: Clock) -> Callable[[int], InterruptLine]:
        """PIC, I/O APIC and PIT in Python; gives the function that makes lines to them."""
        self.pic = Pic(on_output=self._pic_output)
        self.ioapic = IoApic(deliver=self._handle.signal_msi, on_routes_changed=self._routes_changed)
        router = GsiRouter(pic=self.pic, ioapic=self.ioapic)
        pit = Pit(clock=clock, line=router.line(0), listener=router)
        self._devices += [self.pic, self.ioapic, pit]
        return router.line

    def _kernel_lines(self) -> Callable[[int], InterruptLine]:
        """Lines into the backend's own irqchip, one shared wire a GSI."""
        wires: dict[int, SharedLine] = {}

        def line(gsi: int) -> InterruptLine:
            if gsi not in wires:
                wires[gsi] = SharedLine(lambda level: self._handle.set_irq_line(gsi, level))
            return wires[gsi].source()

        return line

    def _pic_output(self, level: bool) -> None:
        if level:
            self._kick()

    def _routes_changed(self) -> None:
        assert self.ioapic is not None
        self._handle.set_gsi_routes(self.ioapic.routes())

    def end_of_interrupt(self, vector: int) -> None:
        """The local APICs broadcast an EOI."""
        if self.ioapic is not None:
            self.ioapic.eoi(vector)

    def reset(self) -> None:
        """Return every device to its power-on state."""
        for device in self._devices:
            device.reset()
        for user_device in self._user_devices:
            user_device.reset()

    def unclaimed(self) -> dict[str, int]:
        """Accesses that no device answered, by "port 0x.." or "memory 0x..", the most used first."""
        found = {
            f"{space.name} {address:#x}" if address >= 0 else f"{space.name} others": number
            for space in (self.ports, self.mmio)
            for address, number in space.unclaimed.items()
        }
        return dict(sorted(found.items(), key=lambda item: -item[1])[:MAX_REPORTED])
