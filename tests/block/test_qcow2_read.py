"""Reading qcow2 images: every kind of cluster, both versions; lies that only show in use are errors of that use."""

import errno
import os
import random
import struct

import pytest
from qcow2_files import COPIED, PACKED, ZERO, Editor, create

from pyhv.block.open import open_image
from pyhv.block.qcow2 import compressed, reader

BITS = 12
CLUSTER = 1 << BITS
SIZE = 64 * CLUSTER


def contents(n, size=CLUSTER):
    return random.Random(n).randbytes(size // 2) + bytes(size - size // 2)


def opened(path, **options):
    return open_image(str(path), "qcow2", **{"readonly": True} | options)


@pytest.fixture
def editor(tmp_path):
    return Editor(create(tmp_path / "disk", SIZE, bits=BITS))


@pytest.mark.parametrize("bits", [9, 12, 16, 21])
@pytest.mark.parametrize("version", [2, 3])
def test_an_empty_image_is_zeros(tmp_path, bits, version):
    image = opened(create(tmp_path / "disk", 5 << bits, bits=bits, version=version))
    assert (image.size, image.unit, image.readonly) == (5 << bits, 1 << bits, True)
    assert image.read(0, 1 << bits) == bytes(1 << bits)
    image.close()


@pytest.mark.parametrize(("version", "compression"), [(2, 0), (3, 0), (3, 1)])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_every_kind_of_cluster(tmp_path, version, compression, bits):
    cluster = 1 << bits
    path = create(
        tmp_path / "disk", 200 * cluster, bits=bits, version=version, compression=compression, incompatible=8 * compression
    )
    editor = Editor(path)
    model = bytearray(200 * cluster)
    for n in (0, 1, 2, 5, 63, 64, 199):
        model[n * cluster : (n + 1) * cluster] = contents(n, cluster)
        editor.data_cluster(n, contents(n, cluster))
    packed = {n: contents(n, cluster) for n in (3, 4, 7, 100)}
    editor.pack(packed)
    for n, data in packed.items():
        model[n * cluster : (n + 1) * cluster] = data
    if version == 3:
        editor.map(8, ZERO)
        editor.map(9, editor.append(b"not to be read" * 9) | ZERO | COPIED)
    assert editor.walk.check()[0] == []
    assert editor.walk.disk() == model
    editor.save()
    image = opened(path)
    assert image.read(0, image.size) == model
    rng = random.Random(1)
    for _ in range(100):
        offset = rng.randrange(image.size)
        length = min(image.size - offset, rng.choice([1, 512, cluster, 5 * cluster]))
        assert image.read(offset, length) == model[offset : offset + length]
    image.close()


def test_clusters_in_a_row_are_one_read(editor, monkeypatch):
    editor.l2_slot(0)
    for n in range(3, 9):
        editor.data_cluster(n, contents(n))
    editor.save()
    image = opened(editor.path)
    image.read(0, 1)
    calls = []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, offset: calls.append(len(views)) or real(fd, views, offset))
    buffers = [bytearray(1000) for _ in range(20)]
    image.preadv([memoryview(b) for b in buffers], 3 * CLUSTER + 100, 20000)
    assert b"".join(buffers) == b"".join(contents(n) for n in range(3, 9))[100:20100]
    assert calls == [20]


def test_scattered_views(editor):
    for n in (1, 3, 2, 6):
        editor.data_cluster(n, contents(n))
    editor.pack({4: contents(4)})
    editor.save()
    model = editor.walk.disk()
    image = opened(editor.path)
    for size in (1, 7, 512, 5000):
        buffers = [bytearray(size) for _ in range(-(-7 * CLUSTER // size))]
        buffers[-1] = bytearray(7 * CLUSTER - size * (len(buffers) - 1))
        image.preadv([memoryview(b) for b in buffers], 0, 7 * CLUSTER)
        assert b"".join(buffers) == model[: 7 * CLUSTER]


def test_a_backing_file_shows_through(tmp_path):
    below = tmp_path / "below"
    below.write_bytes(contents(0, 20 * CLUSTER + 700))
    path = create(tmp_path / "disk", SIZE, bits=BITS, backing=below)
    editor = Editor(path)
    editor.data_cluster(2, contents(2))
    editor.map(3, ZERO)
    editor.pack({4: contents(4)})
    editor.save()
    model = editor.walk.disk(below.read_bytes())
    image = opened(path, backing=True)
    assert image.read(0, SIZE) == model
    for offset in (CLUSTER - 1, 3 * CLUSTER, 20 * CLUSTER + 600, 40 * CLUSTER):
        assert image.read(offset, 3000) == model[offset : offset + 3000]
    image.close()


def test_the_last_cluster_of_the_file_may_be_short(editor):
    editor.data_cluster(0, contents(0))
    editor.map(1, editor.append(b"short") | COPIED)
    editor.save()
    os.truncate(editor.path, len(editor.data) - CLUSTER + 5)
    image = opened(editor.path)
    assert image.read(CLUSTER, CLUSTER) == b"short" + bytes(CLUSTER - 5)


def test_a_size_that_is_no_multiple_of_sectors(tmp_path):
    path = create(tmp_path / "disk", 2 * CLUSTER + 100, bits=BITS)
    editor = Editor(path)
    editor.data_cluster(2, b"tail" * 1024)
    editor.save()
    image = opened(path)
    assert image.size == 2 * CLUSTER + 512
    assert image.read(2 * CLUSTER, 512) == b"tail" * 128


LIES = {
    "beyond the file": 1 << 40 | COPIED,
    "beyond any file": 0x00FF_FFFF_FFFF_F000 | COPIED,
    "not aligned": 3 * CLUSTER + 512 | COPIED,
    "reserved high bits": 1 << 58 | 3 * CLUSTER,
    "reserved low bits": 3 * CLUSTER | 2,
    "offset 0 with a flag": COPIED,
    "offset 0, zero, with a flag": COPIED | ZERO,
    "compressed beyond the file": PACKED | 1 << 40,
    "compressed with the wrong flag": PACKED | COPIED | 3 * CLUSTER,
    "compressed nonsense": PACKED | 3 * CLUSTER + 100,
    "compressed, too long": PACKED | ((1 << (BITS - 8)) - 1) << (62 - (BITS - 8)) | 4 * CLUSTER - 100,
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("write", [False, True])
def test_lies_are_errors_of_the_one_read(editor, lie, write):
    for n in (0, 2):
        editor.data_cluster(n, contents(n))
    editor.map(1, LIES[lie])
    editor.save()
    image = opened(editor.path, readonly=not write)
    for offset, length in ((CLUSTER, 512), (0, 3 * CLUSTER), (2 * CLUSTER - 1, 1)):
        with pytest.raises(OSError, match="damaged image") as error:
            image.read(offset, length)
        assert error.value.errno == errno.EIO
    for n in (0, 2):
        assert image.read(n * CLUSTER, CLUSTER) == contents(n)
    if write:
        for call in (
            lambda: image.write(CLUSTER, b"x"),
            lambda: image.write_zeroes(CLUSTER, 512, unmap=False),
        ):
            with pytest.raises(OSError, match="damaged image"):
                call()
    image.close()


def test_version_2_has_no_zero_clusters(tmp_path):
    editor = Editor(create(tmp_path / "disk", SIZE, bits=BITS, version=2))
    editor.map(1, ZERO)
    editor.save()
    with pytest.raises(OSError, match="damaged image"):
        opened(editor.path).read(CLUSTER, 1)


@pytest.mark.parametrize("compression", [0, 1])
def test_a_compressed_cluster_that_unpacks_to_more_or_less(tmp_path, compression):
    path = create(tmp_path / "disk", SIZE, bits=BITS, compression=compression, incompatible=8 * compression)
    editor = Editor(path)
    editor.pack({0: bytes(1 << 20), 1: bytes(CLUSTER), 2: bytes(CLUSTER - 1)})
    editor.save()
    image = opened(path)
    assert image.read(0, CLUSTER) == bytes(CLUSTER)  # no more is unpacked than a cluster
    with pytest.raises(OSError, match="damaged image: a compressed cluster at"):
        image.read(2 * CLUSTER, 1)
    assert image.read(CLUSTER, CLUSTER) == bytes(CLUSTER)


def test_unpacked_clusters_are_kept_within_bounds(editor, monkeypatch):
    monkeypatch.setattr(reader, "UNPACKED_BYTES", 4 * CLUSTER)
    editor.pack({n: contents(n) for n in range(10)})
    editor.save()
    image = opened(editor.path)
    calls = []
    unpack = image._decompress
    monkeypatch.setattr(image, "_decompress", lambda data, size: calls.append(1) or unpack(data, size))
    for _ in range(3):
        for n in range(4):
            assert image.read(n * CLUSTER, CLUSTER) == contents(n)
    assert len(calls) == 4
    for n in range(10):
        image.read(n * CLUSTER + 5, 1)
    assert len(image._unpacked) <= 4


@pytest.mark.parametrize("bits", range(9, 22))
def test_where_compressed_clusters_are(bits):
    shift = 62 - (bits - 8)
    assert compressed.extent(PACKED | 1000, bits) == (1000, 512 - 1000 % 512)
    assert compressed.extent(PACKED | 3 << shift if bits > 9 else PACKED, bits)[0] == 0
    most = (1 << (bits - 8)) - 1
    assert compressed.extent(PACKED | most << shift | 511, bits) == (511, (most + 1) * 512 - 511)


@pytest.mark.parametrize("offset", [-1, SIZE - 511, 1 << 64])
def test_outside(editor, offset):
    with pytest.raises(OSError, match="outside") as error:
        opened(editor.path).read(offset, 512)
    assert error.value.errno == errno.EINVAL


def test_many_tables_are_read_with_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("pyhv.block.qcow2.tables.CACHE_BYTES", 1)
    path = create(tmp_path / "disk", 64 * 64 * 512, bits=9)  # 64 tables of 64 clusters
    editor = Editor(path)
    for n in range(64):
        editor.data_cluster(n * 64, struct.pack(">Q", n))
    editor.save()
    image = opened(path)
    for _ in range(2):
        for n in range(64):
            assert image.read(n * 64 * 512, 8) == struct.pack(">Q", n)
            assert len(image._mapping.l2.tables) <= 9


@pytest.mark.parametrize("write", [False, True])
def test_a_file_that_became_shorter_is_an_error_not_zeros(tmp_path, write):
    path = create(tmp_path / "disk", SIZE, bits=BITS)
    image = opened(path, readonly=False)
    for n in range(4):
        image.write(n * CLUSTER, contents(n))
    image.close()
    size = path.stat().st_size
    image = opened(path, readonly=not write)
    assert image.read(0, CLUSTER) == contents(0)
    if write:
        image.write(4 * CLUSTER, contents(4))
        assert path.stat().st_size > size
        size = path.stat().st_size
    os.truncate(path, size - CLUSTER)
    last = 4 if write else 3
    assert image.read(0, last * CLUSTER) == b"".join(contents(n) for n in range(last))
    with pytest.raises(OSError, match="it was longer") as error:
        image.read(last * CLUSTER, 512)
    assert error.value.errno == errno.EIO
    image.close()


def test_tables_that_the_file_lost_are_errors(editor):
    image = opened(editor.path, readonly=False)
    image.write(0, contents(1))
    image.close()
    image = opened(editor.path)
    os.truncate(editor.path, 4 * CLUSTER)
    with pytest.raises(OSError, match="it was longer"):
        image.read(0, 512)
    image.close()
