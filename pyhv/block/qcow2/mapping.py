"""The L1 table and the L2 tables: where in the file each cluster of the disk is."""

from __future__ import annotations

import struct
from array import array

from pyhv._types import TYPE_CHECKING
from pyhv.block.qcow2.tables import Codec, Table, TableCache
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.block.host_file import HostFile
    from pyhv.block.qcow2.header import Header
    from pyhv.block.qcow2.refcounts import Refcounts
    from pyhv.block.qcow2.reserved import Reserved

OFFSET = 0x00FF_FFFF_FFFF_FE00
"""Bits 9 to 55 of an entry."""
COPIED = 1 << 63
"""Of an entry: what it points to has a count of one, so that it may be changed where it is."""
COMPRESSED = 1 << 62
"""Of an L2 entry."""
ZERO = 1
"""Of an L2 entry of version 3: the cluster reads as zeros."""
_L1_RESERVED = (1 << 64) - 1 - OFFSET - COPIED
_ENTRY_ORDER = 6


class Mapping:
    """L1 and L2 tables. Methods raise OSError."""

    def __init__(self, file: HostFile, header: Header, reserved: Reserved) -> None:
        self._file = file
        self._bits = header.cluster_bits
        self._offset = header.l1_offset
        self._reserved = reserved
        self._codec = Codec(header.cluster_size, _ENTRY_ORDER)
        self._l1_changed: set[int] = set()
        self.l1 = array("Q", file.read(self._offset, header.l1_size * 8))
        self.l1.byteswap()
        self.l2 = TableCache(file, self._codec)
        for entry in self.l1:
            if entry:
                offset = entry & OFFSET
                if entry & _L1_RESERVED or offset % header.cluster_size or offset >= file.size or not offset:
                    raise ConfigError(f"disk: {file.path!r}: an L2 table at {offset:#x} is not inside the file")
                reserved.claim("an L2 table", offset, header.cluster_size)

    @property
    def pending(self) -> int:
        """Tables that wait to be written."""
        return len(self.l2.dirty)

    def table(self, index: int) -> Table | None:
        """The L2 table of L1 entry `index`; None where nothing is mapped."""
        table = self.l2.tables.get(index)
        if table is None:
            entry = self.l1[index]
            if entry:
                table = self.l2.load(index, entry & OFFSET)
        return table

    def own_table(self, index: int, refcounts: Refcounts) -> Table:
        """The L2 table, made or copied so that it may be changed."""
        table = self.table(index)
        entry = self.l1[index]
        if table is not None and entry & COPIED:
            return table
        cluster, _, _ = refcounts.allocate(1)
        self._reserved.add(cluster)
        entries = self._codec.empty() if table is None else table.entries
        table = self.l2.add(index, Table(cluster << self._bits, entries, fresh=True))
        self.l1[index] = cluster << self._bits | COPIED
        self._l1_changed.add(index)
        if entry:
            old = (entry & OFFSET) >> self._bits
            self._reserved.remove(old)
            refcounts.release(old)
        return table

    def write_fresh(self) -> bool:
        """Write tables that the file does not point to yet; whether there were any."""
        return self.l2.write(lambda table: table.fresh)

    def write_changed(self) -> bool:
        """Write all other changes; the counts of what they point to must be on stable storage. Whether there were any."""
        written = self.l2.write(lambda table: True)
        for index in sorted(self._l1_changed):
            self._file.write(self._offset + index * 8, struct.pack(">Q", self.l1[index]))
            self._l1_changed.discard(index)
            table = self.l2.tables.get(index)
            if table is not None:
                table.fresh = False
            written = True
        return written
