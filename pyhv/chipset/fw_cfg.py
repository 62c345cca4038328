"""QEMU's firmware configuration device (QEMU docs/specs/fw_cfg): blobs that a guest selects by key and reads.

By ports: a 16-bit selector at 0x510, a data byte at 0x511. By DMA: the big-endian address of a request in memory, at
0x514.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.bus import IoFunctions
from pyhv.chipset.layout import FW_CFG_DMA_PORT, FW_CFG_PORT
from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyhv.bus import AddressSpace
    from pyhv.memory.guest import GuestMemory

    Blob = bytes | bytearray | memoryview

SIGNATURE, ID, UUID, RAM_SIZE, NOGRAPHIC, NB_CPUS = 0, 1, 2, 3, 4, 5
KERNEL_ADDRESS, KERNEL_SIZE, KERNEL_DATA, KERNEL_ENTRY = 0x07, 0x08, 0x11, 0x10
INITRD_ADDRESS, INITRD_SIZE, INITRD_DATA = 0x0A, 0x0B, 0x12
CMDLINE_ADDRESS, CMDLINE_SIZE, CMDLINE_DATA = 0x13, 0x14, 0x15
SETUP_ADDRESS, SETUP_SIZE, SETUP_DATA = 0x16, 0x17, 0x18
MAX_CPUS = 0x0F
IRQ0_OVERRIDE = 0x8002
"""Whether ISA IRQ 0 is I/O APIC input 2."""
FILE_DIR = 0x19
FILE_FIRST, FILE_LIMIT = 0x20, 0x4000
WRITE_CHANNEL = 0x4000
"""Selector bit 14: the item is to be written; it is not part of the key."""
NAME_SIZE = 56

TRADITIONAL, DMA = 1, 2
DMA_SIGNATURE = b"QEMU CFG"
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = 1, 2, 4, 8, 16
MAX_PADDING = 1 << 24
"""Zeros that one DMA read may ask for past an item's end; more is an error."""
MAX_WRITE = 1 << 24
FILL_CHUNK = 1 << 16

_REQUEST = struct.Struct(">IIQ")
_E820_ENTRY = struct.Struct("<QQI")


@record
class Item:
    """A blob; `on_write(offset, data)` makes it writable through DMA, and is called after a write."""

    data: Blob
    name: str = ""
    on_write: Callable[[int, bytes], None] | None = None


class FwCfg:
    """The device. Items may be added at any time before the guest selects them.

    - `memory` is what DMA reaches, and its size the item RAM_SIZE; `cpus` are the present ones, `max_cpus` the limit.
    - `uuid`: 16 bytes.
    """

    def __init__(self, *, memory: GuestMemory, cpus: int, max_cpus: int | None = None, uuid: bytes = bytes(16)) -> None:
        if len(uuid) != 16:
            raise ConfigError(f"fw_cfg uuid: {len(uuid)} bytes, not 16")
        self._memory = memory
        self._cpus = cpus
        self._max_cpus = cpus if max_cpus is None else max_cpus
        self._uuid = uuid
        self._items: dict[int, Item] = {}
        self._names: dict[str, int] = {}
        self._selected: Blob = b""
        self._key = -1
        self._offset = 0
        self._dma_high = 0

    def attach(self, ports: AddressSpace, memory: AddressSpace) -> None:
        """Claim the selector, data and DMA ports."""
        ports.map(FW_CFG_PORT, 2, IoFunctions(self._read_data, self._write_selector), "fw_cfg", width=2)
        ports.map(FW_CFG_DMA_PORT, 8, IoFunctions(self._read_dma, self._write_dma), "fw_cfg dma", width=4)

    def reset(self) -> None:
        """Nothing selected; the items stay."""
        self._selected, self._key, self._offset, self._dma_high = b"", -1, 0, 0

    # What the machine puts in

    def add_item(self, key: int, data: Blob) -> None:
        """Set the item of a numeric key (0 to 0x3fff, or 0x8000 to 0xbfff for the architecture's own)."""
        if not 0 <= key < 0x10000 or key & WRITE_CHANNEL:
            raise ConfigError(f"fw_cfg key: {key:#x} is not in 0 to 0x3fff or 0x8000 to 0xbfff")
        self._items[key] = Item(data)

    def add_file(
        self, name: str, data: bytes | bytearray, *, on_write: Callable[[int, bytes], None] | None = None
    ) -> int:
        """Set a named item and give its key. A name that exists keeps its key.

        With `on_write`, the guest may write inside `data` (a copy is kept, of the same size).
        """
        encoded = name.encode("ascii", "replace")
        if not encoded or len(encoded) >= NAME_SIZE or "\0" in name or not name.isascii():
            raise ConfigError(f"fw_cfg file: {name!r} is not 1 to {NAME_SIZE - 1} ASCII characters")
        key = self._names.get(name)
        if key is None:
            key = FILE_FIRST + len(self._names)
            if key >= FILE_LIMIT:
                raise ConfigError(f"fw_cfg file: no room for {name!r}, there are {len(self._names)} already")
            self._names[name] = key
        self._items[key] = Item(data if on_write is None else bytearray(data), name, on_write)
        return key

    def add_e820(self, entries: Iterable[tuple[int, int, int]]) -> None:
        """The memory map as `etc/e820`: (address, length, type) with the types of ACPI 15."""
        self.add_file("etc/e820", b"".join(_E820_ENTRY.pack(*entry) for entry in entries))

    def add_kernel(self, data: Blob, *, address: int = 0, entry: int = 0) -> None:
        """The kernel image as firmware would fetch it."""
        self._add_blob(KERNEL_ADDRESS, KERNEL_SIZE, KERNEL_DATA, data, address)
        self.add_item(KERNEL_ENTRY, entry.to_bytes(4, "little"))

    def add_initrd(self, data: Blob, *, address: int = 0) -> None:
        """The initial RAM disk and where it is meant to go."""
        self._add_blob(INITRD_ADDRESS, INITRD_SIZE, INITRD_DATA, data, address)

    def add_cmdline(self, text: bytes, *, address: int = 0) -> None:
        """The kernel's command line, with its NUL."""
        self._add_blob(CMDLINE_ADDRESS, CMDLINE_SIZE, CMDLINE_DATA, text + b"\0", address)

    def add_setup(self, data: Blob, *, address: int = 0) -> None:
        """A Linux image's real-mode setup code, its header filled in."""
        self._add_blob(SETUP_ADDRESS, SETUP_SIZE, SETUP_DATA, data, address)

    def _add_blob(self, address_key: int, size_key: int, data_key: int, data: Blob, address: int) -> None:
        self.add_item(address_key, (address & 0xFFFF_FFFF).to_bytes(4, "little"))
        self.add_item(size_key, (len(data) & 0xFFFF_FFFF).to_bytes(4, "little"))
        self.add_item(data_key, data)

    # What the guest sees

    def _content(self, key: int) -> Blob:
        item = self._items.get(key)
        if item is not None:
            return item.data
        if key == FILE_DIR:
            return self._directory()
        if key == SIGNATURE:
            return DMA_SIGNATURE[:4]
        if key == ID:
            return (TRADITIONAL | DMA).to_bytes(4, "little")
        if key == UUID:
            return self._uuid
        if key == RAM_SIZE:
            return self._memory.size.to_bytes(8, "little")
        if key == NOGRAPHIC:
            return (1).to_bytes(2, "little")
        if key == NB_CPUS:
            return self._cpus.to_bytes(2, "little")
        if key == MAX_CPUS:
            return self._max_cpus.to_bytes(2, "little")
        return b""

    def _directory(self) -> bytes:
        parts = [struct.pack(">I", len(self._names))]
        for name, key in sorted(self._names.items()):
            parts.append(struct.pack(f">IHH{NAME_SIZE}s", len(self._items[key].data), key, 0, name.encode()))
        return b"".join(parts)

    def _select(self, selector: int) -> None:
        self._key = selector & ~WRITE_CHANNEL & 0xFFFF
        self._selected = self._content(self._key)
        self._offset = 0

    def _take(self, length: int) -> bytes:
        """The next bytes of the item, fewer at its end."""
        data = bytes(self._selected[self._offset : self._offset + length])
        self._offset += len(data)
        return data

    def _write_selector(self, offset: int, size: int, value: int) -> None:
        if size == 2:
            self._select(value)

    def _read_data(self, offset: int, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    # DMA

    def _read_dma(self, offset: int, size: int) -> int:
        return int.from_bytes(DMA_SIGNATURE[offset : offset + size], "little")

    def _write_dma(self, offset: int, size: int, value: int) -> None:
        if size != 4:
            return
        half = int.from_bytes(value.to_bytes(4, "little"), "big")
        if offset == 0:
            self._dma_high = half
        elif offset == 4:
            address, self._dma_high = self._dma_high << 32 | half, 0
            self._transfer(address)

    def _transfer(self, address: int) -> None:
        try:
            control, length, target = _REQUEST.unpack(self._memory.read(address, _REQUEST.size))
        except GuestMemoryError:
            self._finish(address, DMA_ERROR)
            return
        if control & DMA_SELECT:
            self._select(control >> 16)
        status = 0
        try:
            if control & DMA_READ:
                self._dma_read(target, length)
            elif control & DMA_WRITE:
                status = 0 if self._dma_write(target, length) else DMA_ERROR
            elif control & DMA_SKIP:
                self._offset = min(self._offset + length, len(self._selected))
        except GuestMemoryError:
            status = DMA_ERROR
        self._finish(address, status)

    def _dma_read(self, target: int, length: int) -> None:
        available = min(length, len(self._selected) - self._offset)
        padding = length - available
        if padding > MAX_PADDING or not self._memory.contains(target, length):
            raise GuestMemoryError(target, length)
        if available:
            self._memory.write(target, memoryview(self._selected)[self._offset : self._offset + available])
            self._offset += available
        position, end = target + available, target + length
        while position < end:
            chunk = min(FILL_CHUNK, end - position)
            self._memory.fill(position, chunk)
            position += chunk

    def _dma_write(self, source: int, length: int) -> bool:
        item = self._items.get(self._key)
        if item is None or item.on_write is None or not isinstance(item.data, bytearray) or length > MAX_WRITE:
            return False
        if self._offset + length > len(item.data):
            return False
        data = self._memory.read(source, length)
        start = self._offset
        item.data[start : start + length] = data
        self._offset += length
        item.on_write(start, data)
        return True

    def _finish(self, address: int, status: int) -> None:
        try:
            self._memory.write(address, struct.pack(">I", status))
        except GuestMemoryError:
            return
