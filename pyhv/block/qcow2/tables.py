"""Tables of one cluster, cached in memory: L2 tables and refcount blocks."""

from __future__ import annotations

import errno
from array import array

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.block.host_file import HostFile

    Entries = array[int]

CACHE_BYTES = 16 << 20
"""What each cache keeps of tables that need not be written."""
MIN_CACHED = 8


def corrupt(path: str, what: str) -> OSError:
    """A lie in the image, met when it is used."""
    return OSError(errno.EIO, f"{path}: damaged image: {what}")


class Table:
    """The entries of a table, as numbers of this host, and which of them the file does not have yet.

    `fresh`: nothing in the file points to it so far, so it may be written at any time.
    """

    __slots__ = ("entries", "first", "fresh", "last", "offset")

    def __init__(self, offset: int, entries: Entries, *, fresh: bool = False) -> None:
        self.offset = offset
        self.entries = entries
        self.fresh = fresh
        self.first, self.last = (0, len(entries) - 1) if fresh else (len(entries), -1)

    def changed(self, first: int, last: int) -> None:
        """Entries `first` to `last` differ from the file."""
        if first < self.first:
            self.first = first
        if last > self.last:
            self.last = last


class TableCache:
    """Tables by their index. Those that changed stay until they are written, of the others the latest few."""

    def __init__(self, file: HostFile, codec: Codec) -> None:
        self._file = file
        self._codec = codec
        self._limit = max(MIN_CACHED, CACHE_BYTES // codec.memory)
        self.tables: dict[int, Table] = {}
        self.dirty: set[int] = set()

    def load(self, index: int, offset: int) -> Table:
        """The table at `offset` in the file, remembered under `index`. Raises OSError."""
        entries = self._codec.decode(self._file.read(offset, self._codec.size))
        return self.add(index, Table(offset, entries))

    def add(self, index: int, table: Table) -> Table:
        """Remember a table; may forget others that are as in the file."""
        if len(self.tables) - len(self.dirty) >= self._limit:
            for old in [i for i in self.tables if i not in self.dirty][: self._limit // 4 + 1]:
                del self.tables[old]
        self.tables[index] = table
        if table.fresh:
            self.dirty.add(index)
        return table

    def change(self, index: int, table: Table, first: int, last: int) -> None:
        """Note that entries of a table were changed."""
        table.changed(first, last)
        self.dirty.add(index)

    def write(self, wanted: Callable[[Table], bool]) -> bool:
        """Write the changes of those tables that are `wanted`; whether there were any. Raises OSError."""
        written = False
        for index in sorted(self.dirty):
            table = self.tables[index]
            if wanted(table):
                start, data = self._codec.encode(table.entries, table.first, table.last)
                self._file.write(table.offset + start, data)
                written = True
                table.first, table.last = len(table.entries), -1
                self.dirty.discard(index)
        return written


class Codec:
    """Entries of 2^order bits, big-endian; below 8 bits the first entry is the lowest of its byte."""

    def __init__(self, size: int, order: int) -> None:
        self.size = size
        self.count = size * 8 >> order
        self._order = order
        self._type = "BBBBHIQ"[order]
        self.memory = self.count * array(self._type).itemsize
        self.largest = (1 << (1 << order)) - 1

    def empty(self) -> Entries:
        """A table of zeros."""
        return array(self._type, bytes(self.memory))

    def decode(self, data: bytes) -> Entries:
        """The entries of a table's bytes."""
        if self._order >= 3:
            entries = array(self._type, data)
            entries.byteswap()
            return entries
        width = 1 << self._order
        shifts = range(0, 8, width)
        each = [bytes(byte >> shift & self.largest for shift in shifts) for byte in range(256)]
        return array("B", b"".join([each[byte] for byte in data]))

    def encode(self, entries: Entries, first: int, last: int) -> tuple[int, bytes]:
        """Where in the table's bytes the bytes of entries `first` to `last` begin, and they."""
        if self._order >= 3:
            part = entries[first : last + 1]
            part.byteswap()
            return first << self._order >> 3, part.tobytes()
        per_byte = 8 >> self._order
        start, stop = first // per_byte, last // per_byte + 1
        data = bytearray(stop - start)
        for slot in range(per_byte):
            values = entries[start * per_byte + slot : stop * per_byte : per_byte]
            for position, value in enumerate(values):
                data[position] |= value << (slot << self._order)
        return start, bytes(data)
