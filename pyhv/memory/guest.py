"""Bounds-checked access to a guest's physical memory."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, GuestMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyhv.memory.region import MemoryRegion

    WriteObserver = Callable[[int, int], None]

_NOTHING = memoryview(b"")


class GuestMemory:
    """The RAM and ROM of one VM. Every access is checked; one outside raises GuestMemoryError, never anything else.

    Observers hear of each write by the VMM (address, length) before it happens: dirty tracking and the simulator's code
    cache stand on that. A view must be used at once and dropped: it is not valid across a run of the guest.

    `version` changes whenever regions come or go: a view may be kept while it stands still by whoever announces each
    write through it.
    """

    def __init__(self) -> None:
        self.version = 0
        self._regions: list[MemoryRegion] = []
        self._observers: list[WriteObserver] = []

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        """All regions by rising address."""
        return tuple(self._regions)

    @property
    def size(self) -> int:
        """Bytes of writable memory."""
        return sum(r.size for r in self._regions if not r.readonly)

    def add(self, region: MemoryRegion) -> None:
        """Insert a region. Raises ConfigError when it overlaps another."""
        for other in self._regions:
            if other.address < region.end and region.address < other.end:
                raise ConfigError(f"memory region {region.name} at {region.address:#x} overlaps {other.name}")
        self._regions.append(region)
        self._regions.sort(key=lambda r: r.address)
        self.version += 1

    def remove(self, region: MemoryRegion) -> None:
        """Take a region out; it is not closed."""
        self._regions.remove(region)
        self.version += 1

    def observe_writes(self, observer: WriteObserver) -> None:
        """Call `observer(address, length)` before each write by the VMM."""
        self._observers.append(observer)

    def announce(self, address: int, length: int) -> None:
        """Tell the observers of a write that comes through a view that was kept."""
        for observer in self._observers:
            observer(address, length)

    def find(self, address: int) -> MemoryRegion | None:
        """The region that holds this address."""
        for region in self._regions:  # a handful
            if region.address <= address < region.address + region.size:
                return region
        return None

    def contains(self, address: int, length: int, *, write: bool = False) -> bool:
        """Whether the whole range is memory, and with `write` memory that devices may write."""
        if length < 0 or address < 0:
            return False
        end = address + length
        while address < end:
            region = self.find(address)
            if region is None or (write and region.readonly):
                return False
            address = region.end
        return True

    def view(self, address: int, length: int, *, write: bool = False) -> list[memoryview]:
        """The range as contiguous segments, without copying. With `write`, ROM is refused and observers are told."""
        segments: list[memoryview] = []
        if length < 0 or address < 0:
            raise GuestMemoryError(address, length)
        position, end = address, address + length
        while position < end:
            region = self.find(position)
            if region is None or (write and region.readonly):
                raise GuestMemoryError(address, length)
            start = position - region.address
            stop = min(end, region.end)
            segments.append(region.buffer[start : stop - region.address])
            position = stop
        if write:
            for observer in self._observers:
                observer(address, length)
        return segments

    def views(self, ranges: Iterable[tuple[int, int]], *, write: bool = False) -> list[memoryview]:
        """The segments of many (address, length) ranges, one after the other, as `view` gives them for each."""
        segments: list[memoryview] = []
        low = high = 0
        buffer = _NOTHING
        for address, length in ranges:
            if not low <= address < address + length <= high:
                region = self.find(address)
                if region is None or address + length > region.end or length <= 0 or (write and region.readonly):
                    segments += self.view(address, length, write=write)
                    continue
                low, high, buffer = region.address, region.end, region.buffer
            segments.append(buffer[address - low : address - low + length])
            if write:
                for observer in self._observers:
                    observer(address, length)
        return segments

    def read(self, address: int, length: int) -> bytes:
        """Copy bytes out of the guest."""
        region = self.find(address) if length > 0 else None
        if region is not None and address + length <= region.end:
            start = address - region.address
            return bytes(region.buffer[start : start + length])
        return b"".join(self.view(address, length))

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Copy bytes into the guest. Nothing is written unless all of it can be."""
        data = _in_bytes(data)
        position = 0
        for segment in self.view(address, len(data), write=True):
            segment[:] = data[position : position + len(segment)]
            position += len(segment)

    def load(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Like `write`, but into ROM as well: for what builds the machine."""
        data = _in_bytes(data)
        position = 0
        for segment in self.view(address, len(data)):
            segment[:] = data[position : position + len(segment)]
            position += len(segment)
        for observer in self._observers:
            observer(address, len(data))

    def fill(self, address: int, length: int, byte: int = 0) -> None:
        """Set a range to one byte value."""
        for segment in self.view(address, length, write=True):
            segment[:] = bytes((byte,)) * len(segment)

    def read_uint(self, address: int, size: int) -> int:
        """A little-endian unsigned integer of `size` bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def write_uint(self, address: int, size: int, value: int) -> None:
        """Store the low `size` bytes of `value`, little-endian."""
        self.write(address, (value & ((1 << (size * 8)) - 1)).to_bytes(size, "little"))

    def read_cstring(self, address: int, limit: int = 4096) -> bytes:
        """Bytes up to a NUL, at most `limit`; stops quietly at the end of memory."""
        out = bytearray()
        while len(out) < limit:
            region = self.find(address + len(out))
            if region is None:
                break
            start = address + len(out) - region.address
            piece = bytes(region.buffer[start : start + min(256, limit - len(out))])
            end = piece.find(0)
            if end >= 0:
                out += piece[:end]
                break
            out += piece
        return bytes(out)


def _in_bytes(data: bytes | bytearray | memoryview) -> bytes | bytearray | memoryview:
    return data.cast("B") if isinstance(data, memoryview) and data.itemsize != 1 else data
