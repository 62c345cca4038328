"""Which clusters hold tables: nothing else may be there, whatever other tables say."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.block.qcow2.header import Header


class Reserved:
    """The clusters of the header and the tables of an image."""

    def __init__(self, path: str, header: Header) -> None:
        self._path = path
        self._bits = header.cluster_bits
        self._clusters = {0}
        self.claim("the L1 table", header.l1_offset, header.l1_size * 8)
        self.claim("the refcount table", header.refcount_offset, header.refcount_clusters << header.cluster_bits)

    def claim(self, what: str, offset: int, length: int) -> None:
        """Add what was found when the image was opened. Raises ConfigError when it overlaps."""
        if length == 0:
            return
        clusters = range(offset >> self._bits, ((offset + length - 1) >> self._bits) + 1)
        if not self._clusters.isdisjoint(clusters):
            raise ConfigError(f"disk: {self._path!r}: {what} at {offset:#x} overlaps another table")
        self._clusters.update(clusters)

    def add(self, cluster: int) -> None:
        """A cluster was taken for a table."""
        self._clusters.add(cluster)

    def remove(self, cluster: int) -> None:
        """A table was given up."""
        self._clusters.discard(cluster)

    def free(self, cluster: int, number: int) -> bool:
        """Whether none of the clusters holds a table."""
        if number == 1:
            return cluster not in self._clusters
        return self._clusters.isdisjoint(range(cluster, cluster + number))
