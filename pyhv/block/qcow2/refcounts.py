"""Reference counts: which clusters of the file are in use, and the allocation of those that are not."""

from __future__ import annotations

import errno
import struct
from array import array

from pyhv._types import TYPE_CHECKING
from pyhv.block.qcow2.header import LARGEST_OFFSET, MAX_REFCOUNT_TABLE_BYTES, REFCOUNT_TABLE_FIELDS
from pyhv.block.qcow2.tables import Codec, Table, TableCache, corrupt
from pyhv.errors import ConfigError
from pyhv.log import event

if TYPE_CHECKING:
    from pyhv.block.host_file import HostFile
    from pyhv.block.qcow2.header import Header
    from pyhv.block.qcow2.reserved import Reserved


class Refcounts:
    """The two-level table of counts of an image that is written. Methods raise OSError.

    Counts that rise may be written at any time: at worst a cluster is taken for used that is not. A count that falls waits
    (`release`) until no table in the file refers to the cluster any more, and only then may the cluster be used again.
    `high` is the first cluster that was never used, neither in the file as it was opened nor since.
    """

    def __init__(self, file: HostFile, header: Header, reserved: Reserved) -> None:
        self._file = file
        self._bits = header.cluster_bits
        self._size = header.cluster_size
        self._reserved = reserved
        self._codec = Codec(self._size, header.refcount_order)
        self._blocks = TableCache(file, self._codec)
        self._offset = header.refcount_offset
        self._table = array("Q", file.read(self._offset, header.refcount_clusters << self._bits))
        self._table.byteswap()
        self._unlinked: set[int] = set()
        self._released: list[int] = []
        self._hint = 0
        self.high = -(-file.size // self._size)
        for entry in self._table:
            if entry:
                if entry % self._size or entry >= file.size:
                    raise ConfigError(f"disk: {file.path!r}: a refcount block at {entry:#x} is not inside the file")
                reserved.claim("a refcount block", entry, self._size)

    @property
    def pending(self) -> int:
        """Tables and counts that wait to be written."""
        return len(self._blocks.dirty) + len(self._released) // self._codec.count

    def count(self, cluster: int) -> int:
        """How often a cluster is referred to."""
        index, slot = divmod(cluster, self._codec.count)
        block = self._block(index)
        return block.entries[slot] if block is not None else 0

    def _block(self, index: int) -> Table | None:
        block = self._blocks.tables.get(index)
        if block is None and index < len(self._table) and self._table[index]:
            block = self._blocks.load(index, self._table[index])
        return block

    def allocate(self, wanted: int) -> tuple[int, int, bool]:
        """Take up to `wanted` free clusters in a row: the first, how many, and whether nothing was ever stored there."""
        cluster = self._hint
        while True:
            index, slot = divmod(cluster, self._codec.count)
            block = self._block(index)
            if block is None:
                block = self._new_block(index)
            entries = block.entries
            try:
                slot = entries.index(0, slot)
            except ValueError:
                cluster = (index + 1) * self._codec.count
                continue
            number = 1
            while number < wanted and slot + number < len(entries) and not entries[slot + number]:
                number += 1
            cluster = index * self._codec.count + slot
            self._must_be_free(cluster, number)
            self._set(index, block, slot, number, 1)
            self._hint = cluster + number
            fresh = cluster >= self.high
            self.high = max(self.high, cluster + number)
            return cluster, number, fresh

    def _must_be_free(self, cluster: int, number: int) -> None:
        if not self._reserved.free(cluster, number):
            raise corrupt(self._file.path, f"a table in cluster {cluster:#x} is not counted as used")
        if (cluster + number) << self._bits > LARGEST_OFFSET:
            raise OSError(errno.ENOSPC, f"{self._file.path}: the image cannot grow")

    def _set(self, index: int, block: Table, slot: int, number: int, value: int) -> None:
        for position in range(slot, slot + number):
            block.entries[position] = value
        self._blocks.change(index, block, slot, slot + number - 1)

    def unallocate(self, cluster: int, number: int) -> None:
        """Undo an `allocate` of clusters that nothing refers to yet."""
        index, slot = divmod(cluster, self._codec.count)
        block = self._block(index)
        if block is not None:
            self._set(index, block, slot, number, 0)
            self._hint = min(self._hint, cluster)

    def release(self, cluster: int) -> None:
        """One reference less, from the next `drop_released` on."""
        self._released.append(cluster)

    def drop_released(self) -> list[int]:
        """Let the counts fall of what was released; the clusters that are free now. To be called once no table in the
        file refers to them."""
        free = []
        while self._released:
            cluster = self._released[-1]
            index, slot = divmod(cluster, self._codec.count)
            block = self._block(index)
            value = block.entries[slot] if block is not None else 0
            self._released.pop()
            if block is None or value == 0:
                event("block.refcount_wrong", path=self._file.path, cluster=cluster)
                continue
            self._set(index, block, slot, 1, value - 1)
            if value == 1:
                free.append(cluster)
                self._hint = min(self._hint, cluster)
        return free

    # Writing

    def write_blocks(self) -> bool:
        """Write the counts that changed; whether there were any."""
        return self._blocks.write(lambda block: True)

    def write_table(self) -> bool:
        """Let the file's table point to new blocks, which must be on stable storage; whether there were any."""
        written = False
        for index in sorted(self._unlinked):
            self._file.write(self._offset + index * 8, struct.pack(">Q", self._table[index]))
            self._unlinked.discard(index)
            written = True
        return written

    # Growth

    def _new_block(self, index: int) -> Table:
        """A block for clusters that have none yet; its own cluster is the first of them."""
        if index >= len(self._table):
            self._grow_table(index)
            block = self._block(index)
            assert block is not None
            return block
        cluster = index * self._codec.count
        self._must_be_free(cluster, 1)
        block = self._blocks.add(index, Table(cluster << self._bits, self._codec.empty(), fresh=True))
        block.fresh = False
        block.entries[0] = 1
        self._table[index] = cluster << self._bits
        self._unlinked.add(index)
        self._reserved.add(cluster)
        self.high = max(self.high, cluster + 1)
        return block

    def _grow_table(self, index: int) -> None:
        """Move the table to where no block counts yet: new blocks first, after them a table with room for them and more.

        Counts and table are on stable storage before the header points to them. Until it does for sure the old ones are good.
        """
        per_block, old_clusters = self._codec.count, len(self._table) * 8 >> self._bits
        blocks = 1
        while True:
            clusters = max(2 * old_clusters, -(-(index + blocks) * 8 // self._size))
            if blocks * per_block >= blocks + clusters:
                break
            blocks += 1
        if clusters << self._bits > max(MAX_REFCOUNT_TABLE_BYTES, self._size):
            raise OSError(errno.ENOSPC, f"{self._file.path}: the image cannot grow: its refcount table is full")
        start = index * per_block
        self._must_be_free(start, blocks + clusters)
        used = blocks + clusters
        table = array("Q", bytes(clusters << self._bits))
        table[: len(self._table)] = self._table
        self.write_blocks()
        made = []
        for number in range(blocks):
            entries = self._codec.empty()
            for slot in range(min(per_block, used - number * per_block)):
                entries[slot] = 1
            offset = (start + number) << self._bits
            table[index + number] = offset
            self._file.write(offset, self._codec.encode(entries, 0, per_block - 1)[1])
            made.append(Table(offset, entries))
        offset = (start + blocks) << self._bits
        swapped = table[:]
        swapped.byteswap()
        self._file.write(offset, swapped.tobytes())
        self._file.sync()
        self._file.write(REFCOUNT_TABLE_FIELDS, struct.pack(">QI", offset, clusters))
        old = self._offset >> self._bits
        self._offset, self._table = offset, table
        self._unlinked.clear()
        for number, block in enumerate(made):
            self._blocks.add(index + number, block)
        for cluster in range(start, start + used):
            self._reserved.add(cluster)
        self.high = max(self.high, start + used)
        for cluster in range(old, old + old_clusters):
            self._reserved.remove(cluster)
            self.release(cluster)
