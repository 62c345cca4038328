"""Writing a qcow2 image."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

from pyhv._types import TYPE_CHECKING
from pyhv.block.qcow2 import compressed, snapshots
from pyhv.block.qcow2.header import AUTOCLEAR_OFFSET
from pyhv.block.qcow2.mapping import COPIED, ZERO
from pyhv.block.qcow2.reader import NOTHING, PACKED, ZEROS, Qcow2Reader
from pyhv.block.qcow2.refcounts import Refcounts
from pyhv.block.qcow2.tables import corrupt
from pyhv.block.views import Cursor, zeros
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.block.host_file import HostFile
    from pyhv.block.image import Image, Views
    from pyhv.block.qcow2.header import Header
    from pyhv.block.qcow2.tables import Table

MAX_PENDING_BYTES = 8 << 20
MIN_PENDING = 4
"""Tables that may wait for a flush; when there are more they are written without one."""


class Qcow2Writer(Qcow2Reader):
    """An open image that may be changed. Clusters are used where they are when they are its own; all others are copied."""

    readonly = False

    def __init__(self, file: HostFile, header: Header, backing: Image | None = None) -> None:
        if header.dirty or header.corrupt:
            state = "damaged" if header.corrupt else "was not closed properly"
            raise ConfigError(f"disk: {file.path!r}: the image {state}; mend it with: qemu-img check -r all {file.path}")
        super().__init__(file, header, backing)
        snapshots.claim(file, header, self._reserved)
        self._refcounts = Refcounts(file, header, self._reserved)
        self._autoclear = header.autoclear
        self._max_pending = max(MIN_PENDING, MAX_PENDING_BYTES >> self._bits)
        self._changed = False
        self._closed = False

    def _end(self) -> int:
        return self._refcounts.high << self._bits

    def pwritev(self, views: Views, offset: int, length: int) -> None:
        self.check_change(offset, length)
        cursor = Cursor(views)
        while length > 0:
            self._begin_change()
            size = self._write_some(cursor, offset, length)
            offset += size
            length -= size

    def flush(self) -> None:
        """Write the tables, each step on stable storage before the next begins that stands on it.

        Data, counts that rise and tables that nothing points to yet; then pointers to new refcount blocks; then all
        pointers to data and L2 tables; at last the counts that fall, which may be lost.
        """
        counts, mapping = self._refcounts, self._mapping
        counts.write_blocks()
        mapping.write_fresh()
        self._file.sync()
        if counts.write_table():
            self._file.sync()
        if mapping.write_changed():
            self._file.sync()
        freed = counts.drop_released()
        counts.write_blocks()
        self._changed = False
        self._give_back(freed)

    def discard(self, offset: int, length: int) -> None:
        self.check_change(offset, length)
        if self._backing is not None and self._version < 3:
            return  # nothing can say that the cluster is not the backing file's again
        start, end = -(-offset >> self._bits), self._whole_end(offset + length)
        while start < end:
            start += self._unmap(start, end - start)

    def write_zeroes(self, offset: int, length: int, *, unmap: bool) -> None:
        self.check_change(offset, length)
        end = offset + length
        start, stop = -(-offset >> self._bits), self._whole_end(end)
        if start >= stop:
            self._zero(offset, length)
            return
        self._zero(offset, (start << self._bits) - offset)
        if stop << self._bits < end:
            self._zero(stop << self._bits, end - (stop << self._bits))
        while start < stop:
            if self._version >= 3 or (unmap and self._backing is None):
                start += self._unmap(start, stop - start, keep=not unmap)
            else:
                number = min(stop - start, self._l2_mask + 1)
                self._zero(start << self._bits, min(number << self._bits, self.size - (start << self._bits)))
                start += number

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._changed:
                self.flush()
        finally:
            super().close()

    # Inside

    def _begin_change(self) -> None:
        """What comes before each change: it breaks promises of the header, and must find room in memory."""
        self._changed = True
        if self._autoclear:
            self._file.write(AUTOCLEAR_OFFSET, bytes(8))
            self._file.sync()
            self._autoclear = 0
        if self._mapping.pending + self._refcounts.pending > self._max_pending:
            self.flush()
            self._changed = True

    def _write_some(self, cursor: Cursor, offset: int, length: int) -> int:
        """Write the beginning of a range, as much as goes in one piece; how many bytes."""
        cluster, within = offset >> self._bits, offset & self._mask
        index, slot = cluster >> self._l2_bits, cluster & self._l2_mask
        number = min((within + length + self._mask) >> self._bits, self._l2_mask + 1 - slot)
        table = self._mapping.own_table(index, self._refcounts)
        entries = table.entries
        entry = entries[slot]
        kind, where = self._kind(entry)
        if not entry & COPIED:
            return self._write_new(index, table, slot, number, cursor, offset, length)
        found = 1
        while found < number and entries[slot + found] == entry + (found << self._bits):
            found += 1
        self._kind(entries[slot + found - 1])
        self._check_data(where >> self._bits, found)
        size = min(length, (found << self._bits) - within)
        if kind == ZEROS:  # storage that was kept for it
            self._write_filled(cursor, offset, size, where, False)
            self._map(index, table, slot, found, where)
        else:
            self._file.pwritev(cursor.take(size), where + within, size)
        return size

    def _write_new(
        self, index: int, table: Table, slot: int, number: int, cursor: Cursor, offset: int, length: int
    ) -> int:
        """Write to new clusters, in place of up to `number` that are not there or not this image's alone."""
        old = []
        for entry in table.entries[slot : slot + number]:
            if entry & COPIED:
                break
            old.append(self._clusters(entry))
        cluster, found, fresh = self._refcounts.allocate(len(old))
        size = min(length, (found << self._bits) - (offset & self._mask))
        try:
            self._write_filled(cursor, offset, size, cluster << self._bits, fresh)
        except BaseException:
            self._refcounts.unallocate(cluster, found)
            raise
        self._map(index, table, slot, found, cluster << self._bits)
        self._release(old[:found])
        return size

    def _write_filled(self, cursor: Cursor, offset: int, size: int, where: int, fresh: bool) -> None:
        """Write to clusters at `where` that hold nothing useful yet, or (`fresh`) nothing at all; the rest is as before."""
        within = offset & self._mask
        head = self._before(offset - within, within, fresh)
        tail = self._before(offset + size, -(offset + size) & self._mask, fresh)
        views = [*head, *cursor.take(size), *tail]
        start = where if head else where + within
        self._file.pwritev(views, start, sum(map(len, views)))

    def _before(self, offset: int, length: int, fresh: bool) -> list[memoryview]:
        """What the disk holds in a part of a cluster; nothing, if that is zeros and `fresh` storage has them already."""
        if not length:
            return []
        kind = self._extent(offset, length)[0]
        if kind == ZEROS or (kind == NOTHING and self._backing is None):
            return [] if fresh else zeros(length)
        view = memoryview(bytearray(length))
        self._read([view], offset, length)
        return [view]

    def _map(self, index: int, table: Table, slot: int, number: int, where: int) -> None:
        for position in range(number):
            table.entries[slot + position] = COPIED | (where + (position << self._bits))
        self._mapping.l2.change(index, table, slot, slot + number - 1)

    def _clusters(self, entry: int) -> range:
        """The clusters of the file that an L2 entry refers to."""
        kind, where = self._kind(entry)
        if kind == PACKED:
            where, length = compressed.extent(entry, self._bits)
        elif where:
            length = self._cluster
        else:
            return range(0)
        found = range(where >> self._bits, ((where + length - 1) >> self._bits) + 1)
        self._check_data(found.start, len(found))
        return found

    def _check_data(self, cluster: int, number: int) -> None:
        if not self._reserved.free(cluster, number):
            raise corrupt(self._file.path, f"data at {cluster << self._bits:#x}, where a table is")

    def _release(self, old: Sequence[range]) -> None:
        for clusters in old:
            for cluster in clusters:
                self._refcounts.release(cluster)

    def _whole_end(self, end: int) -> int:
        """The cluster up to which a range that ends at `end` covers whole ones; the disk's last counts as whole."""
        return (end + self._mask if end == self.size else end) >> self._bits

    def _unmap(self, cluster: int, number: int, *, keep: bool = False) -> int:
        """Let up to `number` clusters read as zeros, with `keep` in the storage that they have; how many were done."""
        self._begin_change()
        index, slot = cluster >> self._l2_bits, cluster & self._l2_mask
        number = min(number, self._l2_mask + 1 - slot)
        if self._mapping.table(index) is None and self._backing is None:
            return number
        table = self._mapping.own_table(index, self._refcounts)
        entries = table.entries
        empty = 0 if self._backing is None else ZERO
        for position in range(slot, slot + number):
            entry = entries[position]
            if entry == empty:
                continue
            if keep and entry & COPIED:
                self._kind(entry)
                entries[position] = entry | ZERO
            else:
                old = self._clusters(entry)
                entries[position] = empty
                self._release([old])
            self._mapping.l2.change(index, table, position, position)
        return number

    def _zero(self, offset: int, length: int) -> None:
        """Write zeros where there are not any."""
        while length > 0:
            kind, _, size = self._extent(offset, length)
            if kind != ZEROS and (kind != NOTHING or self._backing is not None):
                self.pwritev(zeros(size), offset, size)
            offset += size
            length -= size

    def _give_back(self, clusters: list[int]) -> None:
        """Give the storage of free clusters back to the host, where it takes that."""
        clusters.sort()
        start = 0
        ends = [i for i, (a, b) in enumerate(pairwise(clusters), 1) if b != a + 1] + [len(clusters)]
        with suppress(OSError):
            for end in ends if clusters else ():
                self._file.punch(clusters[start] << self._bits, (end - start) << self._bits)
                start = end
