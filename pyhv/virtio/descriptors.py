"""What both ring formats check of a descriptor chain."""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import GuestMemoryError
from pyhv.virtio.errors import VirtioError
from pyhv.virtio.ids import DESC_INDIRECT, DESC_NEXT, DESC_SIZE, DESC_WRITE

if TYPE_CHECKING:
    from pyhv.memory import GuestMemory
    from pyhv.virtio.chain import Ranges

DESCRIPTOR = Struct("<QIHH")
MAX_CHAIN_BYTES = 1 << 32
"""A chain is not longer in total (virtio 1.2, 2.7.5)."""
MAX_INDIRECT_BYTES = 1 << 20


def check_area(memory: GuestMemory, what: str, address: int, alignment: int, length: int, *, write: bool) -> None:
    """Raises VirtioError unless a part of a ring is aligned, in one piece, and in memory of the right kind."""
    region = memory.find(address)
    if address % alignment:
        raise VirtioError(f"{what} at {address:#x} is not aligned to {alignment}")
    if region is None or address + length > region.end or (write and region.readonly):
        raise VirtioError(f"{what} at {address:#x} is not {'writable ' if write else ''}memory")


class Collector:
    """Takes the elements of one chain, in order, and checks each."""

    __slots__ = ("memory", "readable", "readable_size", "writable", "writable_size")

    def __init__(self, memory: GuestMemory) -> None:
        self.memory = memory
        self.readable: Ranges = []
        self.writable: Ranges = []
        self.readable_size = 0
        self.writable_size = 0

    def add(self, address: int, length: int, write: int) -> None:
        """One element. Raises VirtioError when the device must not touch it."""
        if not self.memory.contains(address, length, write=bool(write)):
            raise VirtioError(f"[{address:#x}, {address + length:#x}) is not memory of the guest")
        if write:
            self.writable_size += length
            if length:
                self.writable.append((address, length))
        else:
            if self.writable_size:
                raise VirtioError("a readable element after a writable one")
            self.readable_size += length
            if length:
                self.readable.append((address, length))

    def add_table(self, address: int, length: int, limit: int, *, linked: bool) -> None:
        """An indirect table of at most `limit` descriptors; `linked` by next (split) or one after the other (packed)."""
        count = length // DESC_SIZE
        if not count or length % DESC_SIZE or (not linked and count > limit):
            raise VirtioError(f"an indirect table of {length} bytes")
        try:
            table = self.memory.read(address, min(length, MAX_INDIRECT_BYTES))
        except GuestMemoryError as error:
            raise VirtioError(f"an indirect table outside memory: {error}") from None
        if not linked:
            for element, size, _, flags in DESCRIPTOR.iter_unpack(table):
                self.add(element, size, flags & DESC_WRITE)
            return
        index = 0
        for _ in range(limit):
            if index >= count or index * DESC_SIZE >= len(table):
                raise VirtioError(f"descriptor {index} of an indirect table of {count}")
            element, size, flags, after = DESCRIPTOR.unpack_from(table, index * DESC_SIZE)
            if flags & DESC_INDIRECT:
                raise VirtioError("an indirect table in an indirect table")
            self.add(element, size, flags & DESC_WRITE)
            if not flags & DESC_NEXT:
                return
            index = after
        raise VirtioError(f"a chain of more than {limit} descriptors")
