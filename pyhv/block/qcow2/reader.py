"""Reading a qcow2 image."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.block.image import SECTOR, Image
from pyhv.block.qcow2 import compressed
from pyhv.block.qcow2.mapping import COMPRESSED, COPIED, OFFSET, ZERO, Mapping
from pyhv.block.qcow2.reserved import Reserved
from pyhv.block.qcow2.tables import corrupt
from pyhv.block.views import Cursor, clear

if TYPE_CHECKING:
    from pyhv.block.host_file import HostFile
    from pyhv.block.image import Views
    from pyhv.block.qcow2.header import Header

NOTHING, ZEROS, DATA, PACKED = range(4)
"""What a cluster of the disk is: not in this file, all zeros, somewhere in the file, compressed."""
UNPACKED_BYTES = 4 << 20
"""Decompressed clusters that are kept."""
_RESERVED = (1 << 62) - 1 - OFFSET - ZERO
"""Bits of a standard L2 entry that are 0."""


class Qcow2Reader(Image):
    """An open image over `file`, to be read; what is not in it comes from `backing`.

    Raises ConfigError for tables that cannot be. Lies that only show in use are OSErrors (EIO) of that use.
    """

    readonly = True

    def __init__(self, file: HostFile, header: Header, backing: Image | None = None) -> None:
        self._file = file
        self._backing = backing
        self._version = header.version
        self._bits = header.cluster_bits
        self.size = (header.size + SECTOR - 1) & -SECTOR
        self.unit = self._cluster = header.cluster_size
        self._mask = self._cluster - 1
        self._l2_bits = self._bits - 3
        self._l2_mask = (1 << self._l2_bits) - 1
        self._bad = _RESERVED | (OFFSET & self._mask) | (ZERO if header.version < 3 else 0)
        self._decompress = compressed.decompressor(header.compression, file.path)
        self._unpacked: dict[int, bytes] = {}
        self._reserved = Reserved(file.path, header)
        self._mapping = Mapping(file, header, self._reserved)

    def preadv(self, views: Views, offset: int, length: int) -> None:
        self.check(offset, length)
        self._read(views, offset, length)

    def flush(self) -> None:
        """Nothing was changed."""

    def close(self) -> None:
        self._file.close()
        if self._backing is not None:
            self._backing.close()

    def _read(self, views: Views, offset: int, length: int) -> None:
        """As `preadv`, to the end of the last cluster."""
        cursor = None
        while length > 0:
            kind, where, size = self._extent(offset, length)
            part = views
            if size != length or cursor is not None:
                cursor = cursor or Cursor(views)
                part = cursor.take(size)
            if kind == DATA:
                got = self._file.preadv(part, where, size)
                if got < size:  # the last cluster of the file need not be there in whole
                    rest = Cursor(part)
                    rest.take(got)
                    clear(rest.take(size - got))
            elif kind == PACKED:
                start = offset & self._mask
                _copy(memoryview(self._unpack(where))[start : start + size], part)
            elif kind == NOTHING and self._backing is not None:
                _read_below(self._backing, part, offset, size)
            else:
                clear(part)
            offset += size
            length -= size

    def _extent(self, offset: int, length: int) -> tuple[int, int, int]:
        """What a range begins with: its kind, where it is (the L2 entry, if compressed), and how far that goes."""
        cluster = offset >> self._bits
        within = offset & self._mask
        slot = cluster & self._l2_mask
        table = self._mapping.table(cluster >> self._l2_bits)
        if table is None:
            return NOTHING, 0, min(length, ((self._l2_mask + 1 - slot) << self._bits) - within)
        entries = table.entries
        kind, where = self._kind(entries[slot])
        size = self._cluster - within
        if kind == PACKED:
            return kind, where, min(length, size)
        after = where
        while size < length and slot < self._l2_mask:
            slot += 1
            after += self._cluster
            next_kind, next_where = self._kind(entries[slot])
            if next_kind != kind or (kind == DATA and next_where != after):
                break
            size += self._cluster
        return kind, where + within, min(length, size)

    def _kind(self, entry: int) -> tuple[int, int]:
        """What an L2 entry says: the kind, and where the cluster is (the entry itself, if compressed)."""
        if entry == 0:
            return NOTHING, 0
        if entry & COMPRESSED:
            if entry & COPIED or compressed.extent(entry, self._bits)[0] >= self._end():
                raise corrupt(self._file.path, f"a compressed cluster that cannot be: {entry:#x}")
            return PACKED, entry
        where = entry & OFFSET
        if entry & self._bad or where >= self._end() or (where == 0 and entry != ZERO):
            raise corrupt(self._file.path, f"an L2 entry that cannot be: {entry:#x}")
        return (ZEROS if entry & ZERO else DATA), where

    def _end(self) -> int:
        """Clusters of the file begin below this."""
        return self._file.size

    def _unpack(self, entry: int) -> bytes:
        """The contents of a compressed cluster."""
        data = self._unpacked.get(entry)
        if data is None:
            offset, length = compressed.extent(entry, self._bits)
            try:
                data = self._decompress(self._file.read(offset, length), self._cluster)
            except ValueError as error:
                raise corrupt(self._file.path, f"a compressed cluster at {offset:#x}: {error}") from None
            if len(data) != self._cluster:
                raise corrupt(self._file.path, f"a compressed cluster at {offset:#x} of {len(data)} bytes")
            if (len(self._unpacked) + 1) * self._cluster > UNPACKED_BYTES:
                del self._unpacked[next(iter(self._unpacked))]
            self._unpacked[entry] = data
        return data


def _read_below(backing: Image, views: Views, offset: int, length: int) -> None:
    """Read from a backing image, which may be shorter."""
    there = max(0, min(length, backing.size - offset))
    if there == length:
        backing.preadv(views, offset, length)
        return
    cursor = Cursor(views)
    if there:
        backing.preadv(cursor.take(there), offset, there)
    clear(cursor.take(length - there))


def _copy(source: memoryview, views: Views) -> None:
    start = 0
    for view in views:
        view[:] = source[start : start + len(view)]
        start += len(view)
