"""The header of a qcow2 image and its extensions; nothing in it is believed before it is checked."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.record import record

if TYPE_CHECKING:
    from typing import NoReturn

MAGIC = 0x514649FB
V2_LENGTH, V3_LENGTH = 72, 104
MIN_CLUSTER_BITS, MAX_CLUSTER_BITS = 9, 21
MAX_L1_BYTES = 32 << 20
MAX_REFCOUNT_TABLE_BYTES = 8 << 20
MAX_SNAPSHOTS = 65536
MAX_BACKING_NAME = 1023
MAX_REFCOUNT_ORDER = 6
LARGEST_OFFSET = 1 << 56
"""Offsets in tables have 56 bits."""

DIRTY, CORRUPT, EXTERNAL_DATA, COMPRESSION_TYPE, EXTENDED_L2 = (1 << n for n in range(5))
"""Incompatible features."""
_FEATURES = ("dirty", "corrupt", "external data file", "compression type", "extended L2 entries")

AUTOCLEAR_OFFSET, REFCOUNT_TABLE_FIELDS = 88, 48
"""Where in the header the fields are that this package changes."""

ZLIB, ZSTD = 0, 1
COMPRESSIONS = ("zlib", "zstd")
END, BACKING_FORMAT = 0, 0xE2792ACA
"""Header extensions."""

_V2 = struct.Struct(">IIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")


@record(frozen=True)
class Header:
    """What the header says, checked for sense in itself and against the length of the file.

    `backing_format` is "" where the header does not say it. `dirty`: reference counts may be wrong; `corrupt`: anything may.
    """

    version: int
    cluster_bits: int
    size: int
    l1_offset: int
    l1_size: int
    refcount_offset: int
    refcount_clusters: int
    refcount_order: int
    snapshots: int
    snapshots_offset: int
    backing: str
    backing_format: str
    compression: int
    dirty: bool
    corrupt: bool
    autoclear: int

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits


def parse(data: bytes, file_size: int, path: str) -> Header:
    """The header from the file's first cluster (or what there is of it). Raises ConfigError that names the file."""
    reader = _Reader(path, file_size)
    if len(data) < V2_LENGTH:
        reader.fail("too short for a qcow2 header")
    (
        magic, version, backing_offset, backing_size, cluster_bits, size, crypt, l1_size, l1_offset, refcount_offset,
        refcount_clusters, snapshots, snapshots_offset,
    ) = _V2.unpack_from(data)  # fmt: skip
    if magic != MAGIC:
        reader.fail("not a qcow2 image")
    if version not in (2, 3):
        reader.fail(f"qcow2 version {version} is not 2 or 3")
    if not MIN_CLUSTER_BITS <= cluster_bits <= MAX_CLUSTER_BITS:
        reader.fail(f"clusters of 2^{cluster_bits} bytes; allowed are 2^{MIN_CLUSTER_BITS} to 2^{MAX_CLUSTER_BITS}")
    if crypt:
        reader.fail("it is encrypted, which is not supported")
    incompatible, autoclear, order, length, compression = 0, 0, 4, V2_LENGTH, ZLIB
    if version == 3:
        if len(data) < V3_LENGTH:
            reader.fail("too short for a qcow2 header")
        incompatible, _, autoclear, order, length = _V3.unpack_from(data, V2_LENGTH)
        if not V3_LENGTH <= length <= min(len(data), 1 << cluster_bits) or length % 8:
            reader.fail(f"a header of {length} bytes")
        if length > V3_LENGTH:
            compression = data[V3_LENGTH]
    _check_features(reader, incompatible, compression)
    if order > MAX_REFCOUNT_ORDER:
        reader.fail(f"reference counts of 2^{order} bits")
    cluster = 1 << cluster_bits
    if size > (1 << 63) - cluster:
        reader.fail(f"a disk of {size} bytes")
    if l1_size > MAX_L1_BYTES // 8 or l1_size < -(-size // (cluster * (cluster // 8))):
        reader.fail(f"an L1 table of {l1_size} entries for {size} bytes")
    if not 0 < refcount_clusters << cluster_bits <= max(MAX_REFCOUNT_TABLE_BYTES, cluster):
        reader.fail(f"a refcount table of {refcount_clusters} clusters")
    if snapshots > MAX_SNAPSHOTS:
        reader.fail(f"{snapshots} snapshots")
    reader.table("L1 table", l1_offset, l1_size * 8, cluster)
    reader.table("refcount table", refcount_offset, refcount_clusters << cluster_bits, cluster)
    reader.table("snapshot table", snapshots_offset, snapshots * 40, cluster)
    extensions = _extensions(reader, data[: min(len(data), cluster)], length, backing_offset)
    return Header(
        version=version,
        cluster_bits=cluster_bits,
        size=size,
        l1_offset=l1_offset,
        l1_size=l1_size,
        refcount_offset=refcount_offset,
        refcount_clusters=refcount_clusters,
        refcount_order=order,
        snapshots=snapshots,
        snapshots_offset=snapshots_offset,
        backing=_backing_name(reader, data, backing_offset, backing_size, cluster) if backing_offset else "",
        backing_format=extensions.get(BACKING_FORMAT, b"").decode("ascii", "replace"),
        compression=compression,
        dirty=bool(incompatible & DIRTY),
        corrupt=bool(incompatible & CORRUPT),
        autoclear=autoclear,
    )


class _Reader:
    def __init__(self, path: str, file_size: int) -> None:
        self.path = path
        self.file_size = file_size

    def fail(self, what: str) -> NoReturn:
        raise ConfigError(f"disk: {self.path!r}: {what}")

    def table(self, name: str, offset: int, length: int, cluster: int) -> None:
        if length and (offset % cluster or offset < cluster or offset + length > max(self.file_size, 0)):
            self.fail(f"the {name} at {offset:#x} is not inside the file")


def _check_features(reader: _Reader, incompatible: int, compression: int) -> None:
    unknown = incompatible & ~(DIRTY | CORRUPT | COMPRESSION_TYPE)
    if unknown:
        bits = [bit for bit in range(64) if unknown >> bit & 1]
        names = [_FEATURES[bit] if bit < len(_FEATURES) else f"bit {bit}" for bit in bits]
        reader.fail(f"it needs features that are not supported: {', '.join(names)}")
    if bool(incompatible & COMPRESSION_TYPE) != bool(compression):
        reader.fail(f"compression type {compression} does not fit its feature bit")
    if compression >= len(COMPRESSIONS):
        reader.fail(f"compression type {compression} is not supported")


def _extensions(reader: _Reader, data: bytes, offset: int, backing_offset: int) -> dict[int, bytes]:
    """The header extensions by type, up to their end, the backing file's name or the end of the first cluster."""
    found: dict[int, bytes] = {}
    end = min(len(data), backing_offset or len(data))
    while offset + _EXTENSION.size <= end:
        kind, length = _EXTENSION.unpack_from(data, offset)
        offset += _EXTENSION.size
        if kind == END:
            break
        if length > end - offset:
            reader.fail(f"header extension {kind:#x} of {length} bytes leaves the first cluster")
        found.setdefault(kind, data[offset : offset + length])
        offset += (length + 7) & -8
    return found


def _backing_name(reader: _Reader, data: bytes, offset: int, size: int, cluster: int) -> str:
    if not 0 < size <= MAX_BACKING_NAME or offset + size > min(len(data), cluster):
        reader.fail(f"a backing file's name of {size} bytes at {offset:#x}")
    name = data[offset : offset + size]
    if b"\0" in name:
        reader.fail("a backing file's name with a NUL")
    return name.decode("utf-8", "surrogateescape")
