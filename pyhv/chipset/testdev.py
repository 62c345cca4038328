"""QEMU's pc-testdev, which small kernels written for `qemu -kernel` use, and a way to send an MSI.

0xe0-0xe3        a 32-bit latch, read and written in any width
0xe4-0xe7        flush a page: nothing to do here
0xe8, 0xea-0xeb  the same latch by bytes (0xe9 is the Bochs console)
0x2000 + n       drive interrupt line n (0 to 23); reads back its level
0x2080           pyhv's own: the address of a message, readable
0x2084           pyhv's own: a 32-bit write sends the message with that data, reads give the last
0xff000000       64 KiB of scratch MMIO
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import (
    IOAPIC_PINS,
    TESTDEV_FLUSH_PORT,
    TESTDEV_IRQ_PORT,
    TESTDEV_LATCH_PORT,
    TESTDEV_MMIO,
    TESTDEV_MMIO_SIZE,
    TESTDEV_MSI_PORT,
)
from pyhv.irq import Msi

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import AddressSpace
    from pyhv.irq import InterruptLine

BYTE_LATCH_PORT = 0xE8


class TestDevice:
    """`line(n)` gives the test device's source on interrupt line n; `send_msi` delivers a message."""

    __test__ = False

    def __init__(self, *, line: Callable[[int], InterruptLine], send_msi: Callable[[Msi], None]) -> None:
        self._line = line
        self._send_msi = send_msi
        self._lines: dict[int, InterruptLine] = {}
        self._latch = 0
        self._msi_address = 0
        self._msi_data = 0
        self._scratch: bytearray | None = None

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the ports and the scratch memory."""
        latch = IoFunctions(self._read_latch, self._write_latch)
        ports.map(TESTDEV_LATCH_PORT, 4, latch, "test latch", width=4)
        ports.map(BYTE_LATCH_PORT, 1, latch, "test latch", width=1)
        rest = IoFunctions(
            lambda offset, size: self._read_latch(offset + 2, size),
            lambda offset, size, value: self._write_latch(offset + 2, size, value),
        )
        ports.map(BYTE_LATCH_PORT + 2, 2, rest, "test latch", width=1)
        ports.map(TESTDEV_FLUSH_PORT, 4, IoFunctions(_read_zero, _ignore), "test flush", width=4)
        ports.map(TESTDEV_IRQ_PORT, IOAPIC_PINS, IoFunctions(self._read_line, self._write_line), "test lines", width=1)
        ports.map(TESTDEV_MSI_PORT, 8, IoFunctions(self._read_msi, self._write_msi), "test msi", width=4)
        scratch = IoFunctions(self._read_scratch, self._write_scratch)
        memory.map(TESTDEV_MMIO, TESTDEV_MMIO_SIZE, scratch, "test scratch", width=8)

    def reset(self) -> None:
        """All lines low, all latches and the scratch memory zero."""
        for line in self._lines.values():
            line.set(False)
        self._latch = self._msi_address = self._msi_data = 0
        self._scratch = None

    def _read_latch(self, offset: int, size: int) -> int:
        return self._latch >> (8 * offset)

    def _write_latch(self, offset: int, size: int, value: int) -> None:
        self._latch = _merge(self._latch, offset, size, value)

    def _read_line(self, offset: int, size: int) -> int:
        line = self._lines.get(offset)
        return int(line is not None and line.level)

    def _write_line(self, offset: int, size: int, value: int) -> None:
        line = self._lines.get(offset)
        if line is None:
            line = self._lines[offset] = self._line(offset)
        line.set(value != 0)

    def _read_msi(self, offset: int, size: int) -> int:
        return (self._msi_address | self._msi_data << 32) >> (8 * offset)

    def _write_msi(self, offset: int, size: int, value: int) -> None:
        if offset < 4:
            self._msi_address = _merge(self._msi_address, offset, size, value)
            return
        self._msi_data = _merge(self._msi_data, offset - 4, size, value)
        if size == 4:
            self._send_msi(Msi(self._msi_address, self._msi_data))

    def _read_scratch(self, offset: int, size: int) -> int:
        if self._scratch is None:
            return 0
        return int.from_bytes(self._scratch[offset : offset + size], "little")

    def _write_scratch(self, offset: int, size: int, value: int) -> None:
        if self._scratch is None:
            self._scratch = bytearray(TESTDEV_MMIO_SIZE)
        self._scratch[offset : offset + size] = value.to_bytes(size, "little")


def _merge(whole: int, offset: int, size: int, value: int) -> int:
    """A 32-bit register after a write of `size` bytes at `offset`; what reaches past it is lost."""
    mask = (1 << (8 * size)) - 1 << (8 * offset)
    return (whole & ~mask | value << (8 * offset) & mask) & 0xFFFF_FFFF


def _read_zero(offset: int, size: int) -> int:
    return 0


def _ignore(offset: int, size: int, value: int) -> None:
    return
