"""The PC that a Machine describes: its address spaces, its chipset, and how its interrupt wires run.

A guest of a few thousand instructions prints a line and ends: all it meets is a serial port and the debug exit. So every
other device is made when the guest first touches it (`pyhv.bus.Deferred`). None of them does anything before that.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.bus import Deferred, mmio_space, port_space
from pyhv.chipset import layout
from pyhv.chipset.debug_exit import DebugExit
from pyhv.chipset.serial import Serial
from pyhv.errors import ConfigError
from pyhv.irq import SharedLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.boot.offer import Offer
    from pyhv.bus import AddressSpace
    from pyhv.chipset.acpi_pm import AcpiPm
    from pyhv.chipset.gsi import GsiRouter
    from pyhv.chipset.ioapic import IoApic
    from pyhv.chipset.pic import Pic
    from pyhv.chipset.pit import Pit
    from pyhv.clock import Clock
    from pyhv.control import MachineControl
    from pyhv.hv.api import VmHandle
    from pyhv.irq import InterruptLine, Msi
    from pyhv.machine import Machine
    from pyhv.memory import GuestMemory
    from pyhv.pci import PciBus

MAX_REPORTED = 32
"""Unclaimed addresses that a Result lists, the most used first."""
KEYBOARD_IRQ, AUX_IRQ = 1, 12
FIRMWARE_TICK_NS = 65536 * 1_000_000_000 // layout.PIT_HZ


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
        attach_devices: Callable[[Pc], None],
    ) -> None:
        self.machine = machine
        self.memory = memory
        self.clock = clock
        self.control = control
        self.ports = port_space()
        self.mmio = mmio_space()
        self.pic: Pic | None = None
        self.ioapic: IoApic | None = None
        self.acpi_pm: AcpiPm | None = None
        self.offer: Offer | None = None
        self._handle = handle
        self._output = output
        self._kick = kick
        self._router: GsiRouter | None = None
        self._pit: Pit | None = None
        self._wires: dict[int, SharedLine] = {}
        self._devices: list[ChipsetDevice] = []
        self._pci: PciBus | None = None
        self.message_routes: dict[int, Msi] = {}
        """Routes of GSIs above the I/O APIC's pins, for messages that leave by irqfd."""
        self.serial = Serial(output=output, irq=self.line(layout.COM_IRQS[layout.COM1]), clock=clock)
        self._add(self.serial)
        self._defer()
        if machine.debug_exit is not None:
            self._add_debug_exit(machine.debug_exit)
        if machine.devices:
            attach_devices(self)
            self._assign_pci()

    def _add(self, device: ChipsetDevice) -> None:
        self._devices.append(device)
        device.attach(self.ports, self.mmio)

    def _add_debug_exit(self, port: int) -> None:
        device = DebugExit(control=self.control, port=port)
        taken = self.ports.obstacle(port, device.size)
        if taken is not None:
            start, _, owner = taken
            where = max(port, start)
            raise ConfigError(f"debug_exit: {port:#x} takes {device.size} ports, but {where:#x} belongs to the {owner}")
        self._add(device)

    def _defer(self) -> None:
        def defer(name: str, build: Callable[[], None], *ranges: tuple[int, int]) -> Deferred:
            unit = Deferred(name, build)
            for base, length in ranges:
                (self.ports if base < self.ports.limit else self.mmio).defer(base, length, unit)
            return unit

        if self.machine.irqchip == "split":
            self._controllers = defer(
                "interrupt controllers",
                self._build_controllers,
                (layout.PIC_MASTER, 2),
                (layout.PIC_SLAVE, 2),
                (layout.PIC_ELCR, 2),
                (layout.PIT_BASE, 4),
                (layout.PORT_61, 1),
                (layout.IOAPIC_BASE, 0x1000),
            )
        defer("rtc", self._build_rtc, (layout.RTC_BASE, 2))
        defer("acpi power management", self._build_acpi_pm, (layout.PM1_EVENT_PORT, 12))
        defer("i8042", self._build_i8042, (layout.I8042_DATA, 1), (layout.I8042_COMMAND, 1))
        defer("reset control", self._build_reset_control, (layout.PCI_ADDRESS_PORT, 8), (layout.PORT_92, 1))
        self._pci_unit = defer("pci", self._build_pci, (layout.ECAM_BASE, layout.ECAM_SIZE))
        defer("pvpanic", self._build_pvpanic, (layout.PVPANIC_PORT, 1))
        defer("bochs console", self._build_bochs_console, (layout.BOCHS_CONSOLE_PORT, 1))
        defer("post code", self._build_post, (layout.POST_PORT, 1), (layout.DELAY_PORT, 1))
        defer("fw_cfg", self._build_fw_cfg, (layout.FW_CFG_PORT, 2), (layout.FW_CFG_DMA_PORT, 8))
        defer(
            "test device",
            self._build_test_device,
            (layout.TESTDEV_LATCH_PORT, 9),
            (layout.TESTDEV_LATCH_PORT + 10, 2),
            (layout.TESTDEV_IRQ_PORT, layout.IOAPIC_PINS),
            (layout.TESTDEV_MSI_PORT, 8),
            (layout.TESTDEV_MMIO, layout.TESTDEV_MMIO_SIZE),
        )

    def _build_controllers(self) -> None:
        from pyhv.chipset.gsi import GsiRouter
        from pyhv.chipset.ioapic import IoApic
        from pyhv.chipset.pic import ALL_MASKED, FIRMWARE_MASKS, Pic
        from pyhv.chipset.pit import Pit

        masks, levels = ALL_MASKED, 0
        if self.machine.firmware is None:
            masks, levels = FIRMWARE_MASKS, 0 if self._pci is None else self._pci.level_irqs
        self.pic = Pic(on_output=self._pic_output, masks=masks, levels=levels)
        self.ioapic = IoApic(deliver=self._handle.signal_msi, on_routes_changed=self.routes_changed)
        self._router = GsiRouter(pic=self.pic, ioapic=self.ioapic)
        self._add(self.pic)
        self._add(self.ioapic)
        self._pit = Pit(clock=self.clock, line=self.line(0), listener=self._router)
        self._add(self._pit)

    def _build_rtc(self) -> None:
        from pyhv.chipset.rtc import Rtc

        self._add(Rtc(clock=self.clock, irq=self.line(layout.RTC_IRQ), ram_size=self.machine.memory, cpus=self.machine.cpus))

    def _build_acpi_pm(self) -> None:
        from pyhv.chipset.acpi_pm import AcpiPm

        self.acpi_pm = AcpiPm(clock=self.clock, control=self.control, sci=self.line(layout.SCI_IRQ))
        self._add(self.acpi_pm)

    def _build_i8042(self) -> None:
        from pyhv.chipset.i8042 import I8042

        self._add(I8042(control=self.control, keyboard_irq=self.line(KEYBOARD_IRQ), aux_irq=self.line(AUX_IRQ)))

    def _build_reset_control(self) -> None:
        from pyhv.chipset.pci_ports import PciPorts
        from pyhv.chipset.reset_control import ResetControl

        reset_control = ResetControl(control=self.control)
        self._add(reset_control)
        self._add(PciPorts(lambda: self.pci, reset_control))

    def _build_pci(self) -> None:
        from pyhv.pci.bus import PciBus

        self._pci = PciBus(ports=self.ports, mmio=self.mmio, memory=self.memory, line=self.line)
        self._add(self._pci)

    def _build_pvpanic(self) -> None:
        from pyhv.chipset.pvpanic import Pvpanic

        self._add(Pvpanic(control=self.control))

    def _build_bochs_console(self) -> None:
        from pyhv.chipset.bochs_console import BochsConsole

        self._add(BochsConsole(output=self._output))

    def _build_post(self) -> None:
        from pyhv.chipset.post import PostPorts

        self._add(PostPorts())

    def _build_fw_cfg(self) -> None:
        from pyhv.boot.e820 import memory_map
        from pyhv.chipset.fw_cfg import FwCfg

        fw_cfg = FwCfg(memory=self.memory, cpus=self.machine.cpus)
        fw_cfg.add_e820((entry.address, entry.length, entry.kind) for entry in memory_map(self.machine.memory))
        if self.offer is not None:
            self.offer.install(fw_cfg)
        self._add(fw_cfg)

    def _build_test_device(self) -> None:
        from pyhv.chipset.testdev import TestDevice

        self._add(TestDevice(line=self.line, send_msi=self._handle.signal_msi))

    @property
    def pci(self) -> PciBus:
        """The PCI bus; made when it is first asked for, by a device or by the guest."""
        self._pci_unit()
        assert self._pci is not None
        return self._pci

    @property
    def pci_pins(self) -> tuple[tuple[int, int], ...]:
        """What firmware's tables are to say of PCI functions (`PciBus.pins`)."""
        return () if self._pci is None else self._pci.pins

    def _assign_pci(self) -> None:
        """What firmware does for PCI functions, where none runs."""
        if self._pci is not None and self.machine.firmware is None:
            self._pci.assign()

    def line(self, gsi: int) -> InterruptLine:
        """A new source of ISA IRQ or GSI `gsi`; the controllers are made when one first rises."""
        wire = self._wires.get(gsi)
        if wire is None:
            if not 0 <= gsi < layout.IOAPIC_PINS:
                raise ConfigError(f"interrupt {gsi}: allowed are 0 to {layout.IOAPIC_PINS - 1}")
            wire = self._wires[gsi] = SharedLine(self._wire(gsi))
        return wire.source()

    def _wire(self, gsi: int) -> Callable[[bool], None]:
        if self.machine.irqchip == "kernel":
            return lambda level: self._handle.set_irq_line(gsi, level)
        inputs: list[InterruptLine] = []

        def drive(level: bool) -> None:
            if not inputs:
                self._controllers()
                assert self._router is not None
                inputs.append(self._router.line(gsi))
            inputs[0].set(level)

        return drive

    def run_timer(self) -> None:
        """Let the timer tick as firmware leaves it, 18.2 times a second, for programs that only ever hook INT 8.

        Nothing is made before the first tick is due. An in-kernel PIT stands until the guest programs it.
        """

        def tick() -> None:
            self._controllers()
            assert self._pit is not None
            self._pit.notice()

        if self.machine.irqchip == "split":
            self.clock.call_at(self.clock.now_ns() + FIRMWARE_TICK_NS, tick)

    def _pic_output(self, level: bool) -> None:
        if level:
            self._kick()

    def routes_changed(self) -> None:
        """The I/O APIC's pins, or messages, lead elsewhere now."""
        pins = self.ioapic.routes() if self.ioapic is not None else {}
        self._handle.set_gsi_routes({**pins, **self.message_routes} if self.message_routes else pins)

    def end_of_interrupt(self, vector: int) -> None:
        """The local APICs broadcast an EOI."""
        if self.ioapic is not None:
            self.ioapic.eoi(vector)

    def reset(self) -> None:
        """Return every device to its power-on state."""
        for device in self._devices:
            device.reset()
        self._assign_pci()

    def unclaimed(self) -> dict[str, int]:
        """Accesses that no device answered, by "port 0x.." or "memory 0x..", the most used first."""
        found = {
            f"{space.name} {address:#x}" if address >= 0 else f"{space.name} others": number
            for space in (self.ports, self.mmio)
            for address, number in space.unclaimed.items()
        }
        return dict(sorted(found.items(), key=lambda item: -item[1])[:MAX_REPORTED])
