"""qcow2 files for tests: made, snapshot, looked through and read by code that shares nothing with pyhv.block."""

import struct
import zlib
from collections import Counter
from pathlib import Path

import zstandard

OFFSET = 0x00FFFFFFFFFFFE00
COPIED = 1 << 63
PACKED = 1 << 62
ZERO = 1
HEADER = ">IIQIIQIIQQIIQ"
V3 = ">QQQII"


def header(
    *, version=3, backing=(0, 0), bits=16, size=1 << 20, crypt=0, l1=(1, 3 << 16), refs=(1 << 16, 1), snapshots=(0, 0),
    incompatible=0, compatible=0, autoclear=0, order=4, length=104, compression=0, extensions=b"",
):  # fmt: skip
    """A header; the pairs are (size, offset) of the L1 table, (offset, clusters) of the refcount table, and so on."""
    data = struct.pack(
        HEADER, 0x514649FB, version, *backing, bits, size, crypt, l1[0], l1[1], refs[0], refs[1], *snapshots
    )
    if version >= 3:
        data += struct.pack(V3, incompatible, compatible, autoclear, order, length)
        data += bytes((compression,)).ljust(max(0, length - 104), b"\0")[: max(0, length - 104)]
    return data + extensions


def extension(kind, data):
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


def create(path, size, *, bits=16, version=3, order=4, backing=None, backing_format="raw", **fields):
    """An empty image: header, refcount table, one refcount block, L1 table."""
    cluster = 1 << bits
    entries = -(-size // (cluster * cluster // 8))
    l1_clusters = max(1, -(-entries * 8 // cluster))
    used = 3 + l1_clusters
    assert used <= cluster * 8 >> order
    name, extensions, where = b"", b"", (0, 0)
    if backing is not None:
        name = str(backing).encode()
        extensions = extension(0xE2792ACA, backing_format.encode()) if backing_format else b""
        where = ((cluster - len(name)) & -8, len(name))
    length = fields.pop("length", 112 if fields.get("compression") else 104)
    head = header(
        version=version, backing=where, bits=bits, size=size, l1=(entries, 3 * cluster), refs=(cluster, 1), order=order,
        length=length, extensions=extensions, **fields,
    )  # fmt: skip
    data = bytearray(used * cluster)
    data[: len(head)] = head
    data[where[0] : where[0] + len(name)] = name or data[:0]
    data[cluster : cluster + 8] = struct.pack(">Q", 2 * cluster)
    for n in range(used):
        set_count(data, 2 * cluster, n, order, 1)
    Path(path).write_bytes(data)
    return path


def set_count(data, block, n, order, value):
    width = 1 << order
    if width >= 8:
        start = block + n * width // 8
        data[start : start + width // 8] = value.to_bytes(width // 8, "big")
    else:
        byte, shift = block + n * width // 8, n * width % 8
        data[byte] = data[byte] & ~(((1 << width) - 1) << shift) | value << shift


class Walk:
    """All tables of an image in memory (`data`), walked by hand. `refs` counts what refers to each cluster."""

    def __init__(self, data):
        self.data = data
        (
            _, self.version, self.backing_offset, self.backing_size, self.bits, self.size, _, self.l1_size, self.l1_offset,
            self.ref_offset, self.ref_clusters, self.snapshots, self.snapshots_offset,
        ) = struct.unpack_from(HEADER, data)  # fmt: skip
        self.order = struct.unpack_from(V3, data, 72)[3] if self.version >= 3 else 4
        self.compression = data[104] if self.version >= 3 and struct.unpack_from(V3, data, 72)[4] > 104 else 0
        self.cluster = 1 << self.bits
        self.refs = Counter()
        self.problems = []
        self.use(0, self.cluster)
        self.use(self.ref_offset, self.ref_clusters * self.cluster)
        self.blocks = self.words(self.ref_offset, self.ref_clusters * self.cluster // 8)
        for block in self.blocks:
            if block:
                self.use(block, self.cluster)
        self.l1(self.l1_offset, self.l1_size)
        at = self.snapshots_offset
        for _ in range(self.snapshots):
            offset, length, id_size, name_size = struct.unpack_from(">QIHH", data, at)
            extra = struct.unpack_from(">I", data, at + 36)[0]
            at += (40 + id_size + name_size + extra + 7) & -8
            self.l1(offset, length, active=False)
        self.use(self.snapshots_offset, at - self.snapshots_offset)

    def words(self, offset, number):
        piece = bytes(self.data[offset : offset + 8 * number]).ljust(8 * number, b"\0")
        return struct.unpack(f">{number}Q", piece)

    def use(self, offset, length):
        if length:
            for cluster in range(offset >> self.bits, ((offset + length - 1) >> self.bits) + 1):
                self.refs[cluster] += 1

    def l1(self, offset, size, active=True):
        self.use(offset, size * 8)
        for entry in self.words(offset, size):
            if entry:
                self.use(entry & OFFSET, self.cluster)
                self.flag(entry, entry & OFFSET, active)
                for word in self.words(entry & OFFSET, self.cluster // 8):
                    self.l2(word, active)

    def l2(self, entry, active):
        if entry & PACKED:
            self.use(*self.packed(entry))
        elif entry & OFFSET:
            self.use(entry & OFFSET, self.cluster)
            self.flag(entry, entry & OFFSET, active)

    def flag(self, entry, offset, active):
        if active and bool(entry & COPIED) != (self.count(offset >> self.bits) == 1):
            self.problems.append(f"COPIED of {entry:#x}, count {self.count(offset >> self.bits)}")

    def packed(self, entry):
        shift = 62 - (self.bits - 8)
        offset = entry & ((1 << shift) - 1)
        sectors = (entry & ~(3 << 62)) >> shift
        return offset, (sectors + 1) * 512 - offset % 512

    def count(self, cluster):
        width = 1 << self.order
        per_block = self.cluster * 8 // width
        index, n = divmod(cluster, per_block)
        if index >= len(self.blocks) or not self.blocks[index]:
            return 0
        start = self.blocks[index] + n * width // 8
        if width >= 8:
            return int.from_bytes(self.data[start : start + width // 8], "big")
        return self.data[start] >> (n * width % 8) & ((1 << width) - 1)

    def check(self):
        """(wrong, leaked): clusters in use more often than counted or with a wrong flag; counted more often than used."""
        clusters = max(len(self.data) // self.cluster + 1, max(self.refs) + 1)
        wrong = [f"cluster {c}: {self.count(c)} < {self.refs[c]}" for c in range(clusters) if self.count(c) < self.refs[c]]
        return wrong + self.problems, [c for c in range(clusters) if self.count(c) > self.refs[c]]

    def disk(self, below=b""):
        """The disk's contents, over those of a backing file."""
        out = bytearray(below[: self.size].ljust(self.size, b"\0"))
        for i, l1 in enumerate(self.words(self.l1_offset, self.l1_size)):
            if not l1:
                continue
            for j, entry in enumerate(self.words(l1 & OFFSET, self.cluster // 8)):
                start = (i * self.cluster // 8 + j) * self.cluster
                if entry & PACKED:
                    offset, length = self.packed(entry)
                    piece = self.unpack(bytes(self.data[offset : offset + length]))
                elif entry & ZERO:
                    piece = bytes(self.cluster)
                elif entry & OFFSET:
                    offset = entry & OFFSET
                    piece = bytes(self.data[offset : offset + self.cluster]).ljust(self.cluster, b"\0")
                else:
                    continue
                out[start : start + self.cluster] = piece[: max(0, self.size - start)]
        return bytes(out[: self.size])

    def unpack(self, data):
        if self.compression:
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        return zlib.decompressobj(-12).decompress(data)


def walk(path):
    return Walk(bytearray(Path(path).read_bytes()))


def assert_whole(path, disk=None, below=b""):
    """No cluster is miscounted, none is leaked, and the disk holds these bytes."""
    found = walk(path)
    assert found.check() == ([], [])
    if disk is not None:
        assert found.disk(below) == bytes(disk)


class Editor:
    """Appends clusters to an image file and points its tables to them: compressed and zero clusters, snapshots."""

    def __init__(self, path):
        self.path = Path(path)
        self.walk = walk(path)
        self.data = self.walk.data
        self.cluster = self.walk.cluster
        self.data += bytes(-len(self.data) % self.cluster)

    def save(self):
        self.path.write_bytes(self.data)

    def append(self, data, count=1):
        """New clusters that hold `data`; their offset."""
        offset = len(self.data)
        self.data += data + bytes(-len(data) % self.cluster)
        for cluster in range(offset // self.cluster, len(self.data) // self.cluster):
            self.set_count(cluster, count)
        return offset

    def set_count(self, cluster, value):
        index, n = divmod(cluster, self.cluster * 8 >> self.walk.order)
        set_count(self.data, self.walk.blocks[index], n, self.walk.order, value)

    def put(self, offset, value):
        self.data[offset : offset + 8] = struct.pack(">Q", value)

    def l2_slot(self, cluster):
        """Where the L2 entry of a disk cluster is; its table is made if need be."""
        i, j = divmod(cluster, self.cluster // 8)
        at = self.walk.l1_offset + 8 * i
        entry = struct.unpack_from(">Q", self.data, at)[0]
        if not entry:
            entry = self.append(bytes(self.cluster)) | COPIED
            self.put(at, entry)
        return (entry & OFFSET) + 8 * j

    def map(self, cluster, entry):
        self.put(self.l2_slot(cluster), entry)

    def data_cluster(self, cluster, data):
        self.map(cluster, self.append(data) | COPIED)

    def pack(self, clusters):
        """Compressed clusters {number: contents}, one after the other without gaps."""
        packed, places = b"", []
        base = len(self.data)
        for number, contents in clusters.items():
            if self.walk.compression:
                piece = zstandard.ZstdCompressor().compress(contents)
            else:
                deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
                piece = deflate.compress(contents) + deflate.flush()
            places.append((number, base + len(packed), len(piece)))
            packed += piece
        for number, _, _ in places:
            self.l2_slot(number)  # so that no table comes in between
        shift = len(self.data) - base
        self.append(packed, 0)
        used = Counter()
        for number, offset, length in places:
            offset += shift
            sectors = ((offset + length - 1) >> 9) - (offset >> 9)
            self.map(number, PACKED | sectors << (62 - (self.walk.bits - 8)) | offset)
            last = ((offset >> 9) + sectors + 1) * 512 - 1
            used.update(range(offset // self.cluster, last // self.cluster + 1))
        for cluster, number in used.items():
            self.set_count(cluster, number)

    def snapshot(self, name="s"):
        """An internal snapshot of the disk as it is."""
        words = self.walk.words
        old = words(self.walk.l1_offset, self.walk.l1_size)
        l1 = self.append(b"".join(struct.pack(">Q", entry & ~COPIED) for entry in old))
        for i, entry in enumerate(old):
            if not entry:
                continue
            self.put(self.walk.l1_offset + 8 * i, entry & ~COPIED)
            self.more((entry & OFFSET) // self.cluster)
            for j, word in enumerate(words(entry & OFFSET, self.cluster // 8)):
                if word & PACKED:
                    offset, length = self.walk.packed(word)
                    for cluster in range(offset // self.cluster, (offset + length - 1) // self.cluster + 1):
                        self.more(cluster)
                elif word & OFFSET:
                    self.more((word & OFFSET) // self.cluster)
                    self.put((entry & OFFSET) + 8 * j, word & ~COPIED)
        table = struct.pack(">QIHHIIQII", l1, len(old), 1, len(name), 0, 0, 0, 0, 16) + bytes(8)
        table += struct.pack(">Q", self.walk.size) + b"1" + name.encode()
        assert not self.walk.snapshots
        where = self.append(table + bytes(-len(table) % 8))
        self.data[60:72] = struct.pack(">IQ", 1, where)

    def more(self, cluster):
        self.set_count(cluster, self.walk.count(cluster) + 1)


def furnish(path, bits, *, snapshot):
    """Put data clusters and compressed ones into an image with clusters of 1 << bits bytes, and take a snapshot of it."""
    editor = Editor(path)
    for n in range(0, 8, 2):
        editor.data_cluster(n, bytes([n + 1]) * (1 << bits))
    editor.pack({n: bytes([n]) * (1 << bits) for n in (9, 10)})
    if snapshot:
        editor.snapshot()
    editor.save()
