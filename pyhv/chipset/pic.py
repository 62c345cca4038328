"""The PC's pair of 8259A interrupt controllers, with the edge/level registers of PCI chipsets.

Sources: Intel 8259A data sheet (231468); edge/level control registers: Intel 82371AB (PIIX4) data sheet. Where the
chipset's cell differs from the discrete part, the chipset wins: ICW1's level bit is void, the ELCR decides for each
input. Two things follow the virtual machines that software meets rather than the discrete part: an edge stays requested
after its input fell again (devices may pulse), and reset leaves the pair as PC firmware does.
"""

from __future__ import annotations

from enum import Enum, auto

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import PIC_ELCR, PIC_MASTER, PIC_SLAVE
from pyhv.errors import ConfigError
from pyhv.irq import InterruptLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace

CASCADE = 2
"""The master's input that the slave's output drives."""
SPURIOUS = 7
"""What a chip answers to an acknowledge when the request has gone (data sheet, "edge and level triggered modes")."""

FIRMWARE_BASES = (0x08, 0x70)
"""The vectors that PC firmware programs."""
FIRMWARE_MASKS = (0xB8, 0x8E)
"""The masks that PC firmware leaves: timer, keyboard, cascade, floppy; RTC, mouse, FPU, disk are open."""

ALL_MASKED = (0xFF, 0xFF)
"""Before firmware ran: the data sheet leaves the masks undefined until ICW1."""

ICW1 = 0x10
ICW1_IC4 = 0x01
ICW1_SINGLE = 0x02
ICW4_AEOI = 0x02
ICW4_SFNM = 0x10
OCW3 = 0x08
OCW3_RIS = 0x01
OCW3_READ = 0x02
OCW3_POLL = 0x04
OCW3_SMM = 0x20
OCW3_ESMM = 0x40

ELCR_WRITABLE = (0xF8, 0xDE)
"""IRQ0, 1, 2, 8 and 13 are always edge triggered."""


class Expect(Enum):
    """What the next write to a chip's odd port is."""

    OCW1 = auto()
    ICW2 = auto()
    ICW3 = auto()
    ICW4 = auto()


def _highest(bits: int, lowest: int) -> int:
    """Rank (0 is first) of the first set bit when `lowest` has the last priority; 8 when none is set."""
    rotated = ((bits << 8 | bits) >> ((lowest + 1) & 7)) & 0xFF
    return (rotated & -rotated).bit_length() - 1 if rotated else 8


class Pic8259:
    """One 8259A. `on_output` hears changes of INT; `has_slave` makes its input 2 the cascade."""

    def __init__(self, on_output: Callable[[bool], None], *, base: int, elcr_writable: int, has_slave: bool) -> None:
        self._on_output = on_output
        self._firmware_base = base
        self._elcr_writable = elcr_writable
        self._has_slave = has_slave
        self._inputs = 0
        self.output = False
        self.elcr = 0
        self._initialise()
        self.base = base
        self.expect = Expect.OCW1
        self.imr = 0xFF

    def reset(self, *, imr: int, elcr: int) -> None:
        """The state that firmware leaves: initialised, nothing in service."""
        self.elcr = elcr & self._elcr_writable
        self._initialise()
        self.base = self._firmware_base
        self.expect = Expect.OCW1
        self.imr = imr
        self.update()

    def _initialise(self) -> None:
        self._edges = 0
        self.isr = 0
        self.imr = 0
        self.base = 0
        self.lowest = 7
        self.single = False
        self.needs_icw4 = False
        self.auto_eoi = False
        self.rotate_on_auto_eoi = False
        self.fully_nested_special = False
        self.special_mask = False
        self.reads_isr = False
        self.polled = False
        self.expect = Expect.ICW2

    @property
    def irr(self) -> int:
        """The requests: latched edges, and the level inputs that are high."""
        return (self._edges & ~self.elcr) | (self._inputs & self.elcr)

    def set_input(self, index: int, level: bool) -> None:
        """Drive IR`index`."""
        bit = 1 << index
        if level:
            if not self._inputs & bit:
                self._edges |= bit
            self._inputs |= bit
        else:
            self._inputs &= ~bit
        self.update()

    def pending(self) -> int | None:
        """The input that an acknowledge would serve now."""
        requests = self.irr & ~self.imr
        if not requests or self.expect is not Expect.OCW1:
            return None
        rank = _highest(requests, self.lowest)
        index = (self.lowest + 1 + rank) & 7
        in_service = self.isr
        if self.special_mask:
            in_service &= ~self.imr
        if self.fully_nested_special and self._has_slave and index == CASCADE:
            in_service &= ~(1 << CASCADE)
        return index if rank < _highest(in_service, self.lowest) else None

    def update(self) -> None:
        """Bring INT up to date."""
        self._drive(self.pending() is not None)

    def _drive(self, level: bool) -> None:
        if level != self.output:
            self.output = level
            self._on_output(level)

    def acknowledge(self, index: int) -> None:
        """The INTA sequence for this input: the request moves into service and INT falls until it is looked at anew."""
        bit = 1 << index
        self._edges &= ~bit
        if not self.auto_eoi:
            self.isr |= bit
        elif self.rotate_on_auto_eoi:
            self.lowest = index
        self._drive(False)
        self.update()

    def withdraw(self, index: int) -> None:
        """Forget an edge that was answered in another way."""
        self._edges &= ~(1 << index)
        self.update()

    def read(self, odd: bool) -> int:
        """Read the even port (IRR or ISR) or the odd one (IMR); after a poll command either answers the poll."""
        if self.polled:
            self.polled = False
            index = self.pending()
            if index is None:
                return 0
            self.acknowledge(index)
            return 0x80 | index
        if odd:
            return self.imr
        return self.isr if self.reads_isr else self.irr

    def write(self, odd: bool, value: int) -> None:
        """Write a command or initialisation word."""
        if odd:
            self._write_odd(value)
        elif value & ICW1:
            self._initialise()
            self.single = bool(value & ICW1_SINGLE)
            self.needs_icw4 = bool(value & ICW1_IC4)
        elif value & OCW3:
            self._write_ocw3(value)
        else:
            self._write_ocw2(value >> 5, value & 7)
        self.update()

    def _write_odd(self, value: int) -> None:
        last = Expect.ICW4 if self.needs_icw4 else Expect.OCW1
        if self.expect is Expect.OCW1:
            self.imr = value
        elif self.expect is Expect.ICW2:
            self.base = value & 0xF8
            self.expect = last if self.single else Expect.ICW3
        elif self.expect is Expect.ICW3:
            self.expect = last
        else:
            self.auto_eoi = bool(value & ICW4_AEOI)
            self.fully_nested_special = bool(value & ICW4_SFNM)
            self.expect = Expect.OCW1

    def _write_ocw2(self, command: int, level: int) -> None:
        rotate, specific, eoi = command & 4, command & 2, command & 1
        if not eoi:
            if not specific:
                self.rotate_on_auto_eoi = bool(rotate)
            elif rotate:
                self.lowest = level
            return
        if not specific:
            candidates = self.isr & ~self.imr if self.special_mask else self.isr
            rank = _highest(candidates, self.lowest)
            if rank == 8:
                return
            level = (self.lowest + 1 + rank) & 7
        self.isr &= ~(1 << level)
        if rotate:
            self.lowest = level

    def _write_ocw3(self, value: int) -> None:
        if value & OCW3_POLL:
            self.polled = True
        if value & OCW3_READ:
            self.reads_isr = bool(value & OCW3_RIS)
        if value & OCW3_ESMM:
            self.special_mask = bool(value & OCW3_SMM)

    def write_elcr(self, value: int) -> None:
        """Choose the level triggered inputs; those that the chipset fixes stay edge triggered."""
        self.elcr = value & self._elcr_writable
        self.update()


class Pic:
    """The cascaded pair: ISA IRQ 0-15.

    `on_output` hears changes of INTR, the wire to the processor. `masks` are the interrupt masks after reset, `levels` the
    IRQs that are then level triggered, a bit each.
    """

    def __init__(
        self,
        *,
        on_output: Callable[[bool], None] = lambda level: None,
        masks: tuple[int, int] = FIRMWARE_MASKS,
        levels: int = 0,
    ) -> None:
        self.master = Pic8259(on_output, base=FIRMWARE_BASES[0], elcr_writable=ELCR_WRITABLE[0], has_slave=True)
        self.slave = Pic8259(self._cascade, base=FIRMWARE_BASES[1], elcr_writable=ELCR_WRITABLE[1], has_slave=False)
        self._masks = masks
        self._levels = levels
        self._lines: dict[int, InterruptLine] = {}
        self.on_timer_change: Callable[[], None] = lambda: None
        """Called when IRQ0's request was taken, and after each write to the master."""
        self.reset()

    def _cascade(self, level: bool) -> None:
        self.master.set_input(CASCADE, level)

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim ports 0x20, 0xA0 and 0x4D0, two each."""
        for base, chip in ((PIC_MASTER, self.master), (PIC_SLAVE, self.slave)):
            ports.map(base, 2, IoFunctions(self._reader(chip), self._writer(chip)), "pic", width=1)
        ports.map(PIC_ELCR, 2, IoFunctions(self._read_elcr, self._write_elcr), "pic-elcr", width=1)

    def reset(self) -> None:
        """The state that PC firmware leaves; the inputs' levels stay what their devices drive."""
        self.slave.reset(imr=self._masks[1], elcr=self._levels >> 8)
        self.master.reset(imr=self._masks[0], elcr=self._levels & 0xFF)
        self.on_timer_change()

    def line(self, irq: int) -> InterruptLine:
        """The input of ISA IRQ `irq`, always the same object; raises ConfigError for 2, the cascade, and above 15."""
        if not 0 <= irq < 16 or irq == CASCADE:
            raise ConfigError(f"PIC input {irq}: allowed are 0 to 15 without {CASCADE}")
        line = self._lines.get(irq)
        if line is None:
            chip, index = (self.slave, irq - 8) if irq >= 8 else (self.master, irq)
            line = self._lines[irq] = InterruptLine(lambda level: chip.set_input(index, level))
        return line

    @property
    def output(self) -> bool:
        """Whether INTR is asserted."""
        return self.master.output

    def acknowledge(self) -> int:
        """The processor's INTA cycle: the vector. With no request left it is the spurious one, IRQ7 or IRQ15."""
        index = self.master.pending()
        if index is None:
            return self.master.base + SPURIOUS
        if index != CASCADE:
            self.master.acknowledge(index)
            if index == 0:
                self.on_timer_change()
            return self.master.base + index
        # The slave's INT has to fall and rise around the master's own acknowledge, else its next request makes no edge.
        inner = self.slave.pending()
        self.master.acknowledge(CASCADE)
        if inner is None:
            return self.slave.base + SPURIOUS
        self.slave.acknowledge(inner)
        return self.slave.base + inner

    def _reader(self, chip: Pic8259) -> Callable[[int, int], int]:
        def read(offset: int, size: int) -> int:
            polled = chip.polled
            value = chip.read(offset == 1)
            if polled:
                if chip is self.slave and not chip.output:
                    self.master.withdraw(CASCADE)
                self.on_timer_change()
            return value

        return read

    def _writer(self, chip: Pic8259) -> Callable[[int, int, int], None]:
        def write(offset: int, size: int, value: int) -> None:
            chip.write(offset == 1, value & 0xFF)
            if chip is self.master:
                self.on_timer_change()

        return write

    def _read_elcr(self, offset: int, size: int) -> int:
        return (self.slave if offset else self.master).elcr

    def _write_elcr(self, offset: int, size: int, value: int) -> None:
        (self.slave if offset else self.master).write_elcr(value & 0xFF)
