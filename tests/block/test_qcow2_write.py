"""Writing qcow2 images: contents, reference counts and flags stay right, whatever is done; snapshots stay as they were."""

import errno
import os
import random
import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qcow2_files import COPIED, OFFSET, ZERO, Editor, assert_whole, create, furnish, walk

from pyhv.block import fallocate
from pyhv.block.open import open_image

BITS = 12
CLUSTER = 1 << BITS
SIZE = 64 * CLUSTER


def opened(path, **options):
    return open_image(str(path), "qcow2", **options)


@pytest.fixture
def path(tmp_path):
    return create(tmp_path / "disk", SIZE, bits=BITS)


def test_what_was_written_is_there(path):
    image = opened(path)
    assert not image.readonly
    image.write(0, b"first")
    image.write(5 * CLUSTER - 3, b"across")
    assert image.read(0, 6) == b"first\0"
    image.close()
    image.close()
    model = bytearray(SIZE)
    model[:5] = b"first"
    model[5 * CLUSTER - 3 : 5 * CLUSTER + 3] = b"across"
    assert_whole(path, model)


def test_nothing_changes_without_writing(path):
    before = path.read_bytes()
    image = opened(path)
    image.read(0, SIZE)
    image.flush()
    image.close()
    assert path.read_bytes() == before


def test_one_run_of_new_clusters_is_one_write(path, monkeypatch):
    image = opened(path)
    image.write(0, b"x")
    calls = []
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, views, offset: calls.append(offset) or real(fd, views, offset))
    image.write(2 * CLUSTER + 100, b"y" * (20 * CLUSTER))
    image.write(2 * CLUSTER, b"z" * (20 * CLUSTER))
    assert len(calls) == 2
    image.close()


def test_the_file_stays_sparse(path):
    image = opened(path)
    for n in range(40):
        image.write(n * CLUSTER + 1000, b"x")
    image.close()
    assert_whole(path)
    assert path.stat().st_size <= 50 * CLUSTER


def test_clusters_that_were_freed_are_used_again(path):
    image = opened(path)
    image.write(0, b"a" * (30 * CLUSTER))
    image.close()
    size = path.stat().st_size
    for _ in range(5):
        image = opened(path)
        image.discard(0, 30 * CLUSTER)
        image.flush()
        image.write(30 * CLUSTER, b"b" * (30 * CLUSTER))
        image.discard(30 * CLUSTER, 30 * CLUSTER)
        image.flush()
        image.write(0, b"a" * (30 * CLUSTER))
        image.close()
        assert_whole(path, b"a" * (30 * CLUSTER) + bytes(34 * CLUSTER))
    assert path.stat().st_size <= size + CLUSTER


def test_freed_clusters_wait_for_the_flush(path):
    """What the file still points to may not be overwritten."""
    image = opened(path)
    image.write(0, b"a" * CLUSTER)
    image.flush()
    where = walk(path).words(walk(path).l1_offset, 1)[0] & OFFSET
    used = walk(path).words(where, 1)[0] & OFFSET
    image.discard(0, CLUSTER)
    image.write(CLUSTER, b"b" * (8 * CLUSTER))
    assert path.read_bytes()[used : used + CLUSTER] == b"a" * CLUSTER
    image.close()
    assert_whole(path, bytes(CLUSTER) + b"b" * (8 * CLUSTER) + bytes(SIZE - 9 * CLUSTER))


def test_old_contents_of_free_clusters_do_not_show(path):
    image = opened(path)
    image.write(0, b"secret" * CLUSTER)
    image.discard(0, 6 * CLUSTER)
    image.flush()
    for n in range(10, 16):
        image.write(n * CLUSTER + 9, b"x")
        assert image.read(n * CLUSTER, CLUSTER) == bytes(9) + b"x" + bytes(CLUSTER - 10)
    image.close()
    with open(path, "ab") as file:  # as after a killed process: what was written last is counted nowhere
        file.write(b"secret" * 40000)
    image = opened(path)
    for n in range(20, 40):
        image.write(n * CLUSTER + 9, b"x")
        assert image.read(n * CLUSTER, CLUSTER) == bytes(9) + b"x" + bytes(CLUSTER - 10)
    image.close()


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("unmap", [False, True])
@pytest.mark.parametrize("backed", [False, True])
def test_zeros(tmp_path, version, unmap, backed):
    below = tmp_path / "below"
    below.write_bytes(b"B" * (40 * CLUSTER))
    path = create(tmp_path / "disk", SIZE, bits=BITS, version=version, backing=below if backed else None)
    model = bytearray(below.read_bytes().ljust(SIZE, b"\0")) if backed else bytearray(SIZE)
    image = opened(path, backing=True)
    image.write(2 * CLUSTER, b"x" * (10 * CLUSTER))
    model[2 * CLUSTER : 12 * CLUSTER] = b"x" * (10 * CLUSTER)
    for offset, length in ((0, 512), (3 * CLUSTER - 7, 3 * CLUSTER), (9 * CLUSTER, 5 * CLUSTER + 1), (SIZE - 100, 100)):
        image.write_zeroes(offset, length, unmap=unmap)
        model[offset : offset + length] = bytes(length)
    image.write(4 * CLUSTER + 1, b"again")
    model[4 * CLUSTER + 1 : 4 * CLUSTER + 6] = b"again"
    assert image.read(0, SIZE) == model
    image.close()
    assert_whole(path, model, below.read_bytes() if backed else b"")


def test_zeros_without_unmap_keep_their_storage(path):
    image = opened(path)
    image.write(0, b"x" * (4 * CLUSTER))
    image.flush()
    size, before = path.stat().st_size, {n for n, c in walk(path).refs.items() if c}
    image.write_zeroes(0, 4 * CLUSTER, unmap=False)
    image.flush()
    assert {n for n, c in walk(path).refs.items() if c} == before
    image.write(CLUSTER + 5, b"y" * CLUSTER)
    image.close()
    assert_whole(path, bytes(CLUSTER + 5) + b"y" * CLUSTER + bytes(SIZE - 2 * CLUSTER - 5))
    assert path.stat().st_size == size
    assert {n for n, c in walk(path).refs.items() if c} == before


def test_discard_gives_the_host_its_storage_back(path):
    image = opened(path)
    image.write(0, b"x" * (60 * CLUSTER))
    image.flush()
    before = path.stat().st_blocks
    image.discard(CLUSTER - 1, 58 * CLUSTER)
    image.flush()
    assert image.read(0, CLUSTER) == b"x" * CLUSTER
    if path.stat().st_blocks == before:
        pytest.skip(f"the file system of {path.parent} has no holes")
    assert path.stat().st_blocks * 512 <= 10 * CLUSTER
    image.close()
    assert_whole(path)


def test_discard_without_holes_in_the_host_s_file(path, monkeypatch):
    def refuse(fd, offset, length):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(fallocate, "punch_hole", refuse)
    image = opened(path)
    image.write(0, b"x" * (10 * CLUSTER))
    image.discard(0, 10 * CLUSTER)
    assert image.read(0, 10 * CLUSTER) == bytes(10 * CLUSTER)
    image.close()
    assert_whole(path, bytes(SIZE))


def test_discard_does_not_bring_a_backing_file_back(tmp_path):
    below = tmp_path / "below"
    below.write_bytes(b"B" * SIZE)
    image = opened(create(tmp_path / "disk", SIZE, bits=BITS, backing=below), backing=True)
    image.write(0, b"x" * CLUSTER)
    image.discard(0, 2 * CLUSTER)
    assert image.read(0, 3 * CLUSTER) == bytes(2 * CLUSTER) + b"B" * CLUSTER
    image.close()
    assert_whole(tmp_path / "disk", bytes(2 * CLUSTER) + b"B" * (SIZE - 2 * CLUSTER), below.read_bytes())


@pytest.mark.parametrize("compression", [0, 1])
def test_compressed_clusters_are_unpacked_when_they_are_written(tmp_path, compression):
    path = create(tmp_path / "disk", SIZE, bits=BITS, compression=compression, incompatible=8 * compression)
    editor = Editor(path)
    data = {n: random.Random(n).randbytes(CLUSTER // 3) + bytes(CLUSTER - CLUSTER // 3) for n in range(12)}
    editor.pack(data)
    editor.save()
    assert_whole(path)
    model = bytearray(walk(path).disk())
    image = opened(path)
    for n, offset, length in ((1, 100, 50), (3, 0, CLUSTER), (5, CLUSTER - 5, 2 * CLUSTER)):
        at = n * CLUSTER + offset
        image.write(at, b"w" * length)
        model[at : at + length] = b"w" * length
    image.discard(8 * CLUSTER, 2 * CLUSTER)
    model[8 * CLUSTER : 10 * CLUSTER] = bytes(2 * CLUSTER)
    assert image.read(0, SIZE) == model
    image.close()
    assert_whole(path, model)


def test_snapshots_stay_as_they_were(path):
    image = opened(path)
    image.write(0, b"old" * (7 * CLUSTER))
    image.close()
    editor = Editor(path)
    editor.pack({30: b"packed" * 500 + bytes(CLUSTER - 3000)})
    old = editor.walk.disk()
    editor.snapshot()
    editor.save()
    assert_whole(path, old)
    model = bytearray(old)
    image = opened(path)
    image.write(CLUSTER + 5, b"new" * 3000)
    model[CLUSTER + 5 : CLUSTER + 9005] = b"new" * 3000
    image.write_zeroes(10 * CLUSTER, 2 * CLUSTER, unmap=False)
    image.discard(12 * CLUSTER, CLUSTER)
    image.discard(30 * CLUSTER, CLUSTER)
    for start, count in ((10, 3), (30, 1)):
        model[start * CLUSTER : (start + count) * CLUSTER] = bytes(count * CLUSTER)
    assert image.read(0, SIZE) == model
    image.close()
    assert_whole(path, model)
    found = walk(path)
    found.l1_offset = struct.unpack_from(">Q", found.data, found.snapshots_offset)[0]
    assert found.disk() == old


def test_promises_of_the_header_are_withdrawn_before_the_first_change(tmp_path):
    path = create(tmp_path / "disk", SIZE, bits=BITS, autoclear=(1 << 63) | 3)
    image = opened(path)
    image.read(0, 512)
    image.close()
    assert path.read_bytes()[88:96] == b"\x80\0\0\0\0\0\0\x03"
    image = opened(path)
    image.write(0, b"x")
    assert path.read_bytes()[88:96] == bytes(8)
    image.close()
    assert_whole(path)


@pytest.mark.parametrize("order", range(7))
@pytest.mark.parametrize("bits", [9, 12])
def test_reference_counts_of_every_width(tmp_path, order, bits):
    cluster = 1 << bits
    path = create(tmp_path / "disk", 300 * cluster, bits=bits, order=order)
    model = bytearray(300 * cluster)
    rng = random.Random(order)
    for _ in range(3):
        image = opened(path)
        for _ in range(60):
            n = rng.randrange(298)
            if rng.random() < 0.7:
                data = rng.randbytes(rng.randrange(1, 2 * cluster))
                image.write(n * cluster, data)
                model[n * cluster : n * cluster + len(data)] = data
            else:
                image.discard(n * cluster, 2 * cluster)
                model[n * cluster : (n + 2) * cluster] = bytes(2 * cluster)
        image.close()
        assert_whole(path, model)


@pytest.mark.parametrize("order", [4, 6])
def test_the_refcount_table_grows(tmp_path, order):
    """A table of one cluster of 512 bytes counts few clusters: 64 blocks of 256 or 64."""
    counted = 64 * (512 * 8 >> order) * 512
    size = 3 * counted
    path = create(tmp_path / "disk", size, bits=9, order=order) if order == 4 else many_l1(tmp_path / "disk", size)
    image = opened(path)
    model = bytearray(size)
    step = 64 << 10
    for n, start in enumerate(range(0, size - step, step)):
        data = struct.pack(">I", n) * (step // 4)
        image.write(start, data)
        model[start : start + step] = data
    image.flush()
    found = walk(path)
    assert found.ref_clusters > 1
    assert found.check() == ([], [])
    image.discard(0, size // 2)
    model[: size // 2] = bytes(size // 2)
    image.close()
    assert_whole(path, model)
    image = opened(path)
    assert image.read(0, size) == model
    image.close()


def many_l1(path, size):
    """An image whose L1 table needs more clusters than one block of 64 counts."""
    create(path, 1 << 20, bits=9, order=6)
    editor = Editor(path)
    entries = -(-size // (512 * 64))
    assert entries * 8 <= 30 * 512
    where = editor.append(bytes(entries * 8))
    editor.data[24:32] = struct.pack(">Q", size)
    editor.data[36:48] = struct.pack(">IQ", entries, where)
    for cluster in range(3, where // 512):
        editor.set_count(cluster, 0)
    editor.save()
    return path


def test_many_tables_wait_only_so_long(tmp_path, monkeypatch):
    syncs = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    path = create(tmp_path / "disk", 400 * 64 * 512, bits=9)
    image = opened(path)
    image._max_pending = 16
    for n in range(200):
        image.write(n * 64 * 512, struct.pack(">I", n))
        assert image._mapping.pending + image._refcounts.pending <= 18
    assert syncs
    image.close()
    assert_whole(path)
    image = opened(path, readonly=True)
    assert [image.read(n * 64 * 512, 4) for n in range(200)] == [struct.pack(">I", n) for n in range(200)]


class Full:
    """Makes pwritev fail once so many bytes were written."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self.real = os.pwritev
        monkeypatch.setattr(os, "pwritev", self)

    def __call__(self, fd, views, offset):
        size = sum(map(len, views))
        if size > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= size
        return self.real(fd, views, offset)


@pytest.mark.parametrize("room", [*range(0, 20000, 700), 40000, 80000])
def test_a_full_host_loses_nothing_that_was_there(path, monkeypatch, room):
    image = opened(path)
    image.write(0, b"kept" * (3 * CLUSTER))
    image.flush()
    model = bytearray(b"kept" * (3 * CLUSTER)).ljust(SIZE, b"\0")
    full = Full(monkeypatch, room)
    for n in range(20, 40):
        try:
            image.write(n * CLUSTER + 10, b"new" * CLUSTER)
            model[n * CLUSTER + 10 : (n + 3) * CLUSTER + 10] = b"new" * CLUSTER
        except OSError as error:
            assert error.errno == errno.ENOSPC
            model[n * CLUSTER + 10 : (n + 3) * CLUSTER + 10] = image.read(n * CLUSTER + 10, 3 * CLUSTER)
        try:
            image.flush()
        except OSError as error:
            assert error.errno == errno.ENOSPC
    assert image.read(0, SIZE) == model
    full.room = 1 << 40  # somebody made room
    image.write(63 * CLUSTER, b"more")
    model[63 * CLUSTER : 63 * CLUSTER + 4] = b"more"
    image.close()
    assert_whole(path, model)


def test_a_cluster_of_tables_is_never_given_to_data(path):
    """Counts that lie: 0 for the L1 table and all behind it."""
    editor = Editor(path)
    editor.data_cluster(0, b"x")
    for cluster in range(len(editor.data) // CLUSTER):
        editor.set_count(cluster, 0)
    editor.save()
    before = path.read_bytes()
    image = opened(path)
    with pytest.raises(OSError, match="damaged image: a table in cluster"):
        image.write(CLUSTER, b"y")
    image.close()
    assert path.read_bytes()[: 3 * CLUSTER] == before[: 3 * CLUSTER]


@pytest.mark.parametrize("target", ["header", "refcount table", "refcount block", "L1 table", "its L2 table"])
def test_data_may_not_be_where_tables_are(path, target):
    editor = Editor(path)
    slot = editor.l2_slot(5)
    where = {"header": 0, "refcount table": 1, "refcount block": 2, "L1 table": 3}.get(target, slot // CLUSTER) * CLUSTER
    for n, flags in enumerate((COPIED, COPIED | ZERO, 0)):
        editor.map(5 + n, where | flags)
    editor.save()
    before = path.read_bytes()
    image = opened(path)
    for n in range(3):
        for call in (
            lambda n=n: image.write((5 + n) * CLUSTER, b"evil" * 1024),
            lambda n=n: image.write((5 + n) * CLUSTER + 7, b"evil"),
            lambda n=n: image.write_zeroes((5 + n) * CLUSTER, CLUSTER, unmap=True),
        ):
            if where or (flags := (COPIED, COPIED | ZERO, 0)[n]):
                with pytest.raises(OSError, match="damaged image"):
                    call()
            else:
                assert flags == 0
    image.close()
    assert path.read_bytes()[: 4 * CLUSTER] == before[: 4 * CLUSTER]


@pytest.mark.parametrize("offset", [-1, SIZE - 511, 1 << 64])
def test_outside(path, offset):
    image = opened(path)
    for call in (
        lambda: image.write(offset, bytes(512)),
        lambda: image.discard(offset, 512),
        lambda: image.write_zeroes(offset, 512, unmap=True),
    ):
        with pytest.raises(OSError, match="outside") as error:
            call()
        assert error.value.errno == errno.EINVAL
    image.close()


STEP = st.tuples(
    st.sampled_from(["write", "write", "write", "zero", "unmap", "discard", "flush", "reopen"]),
    st.integers(0, 47 * 1024),
    st.one_of(st.integers(0, 3000), st.sampled_from([512, 1024, 4096])),
)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=150)
@given(
    steps=st.lists(STEP, max_size=25),
    bits=st.sampled_from([9, 10, 12]),
    version=st.sampled_from([2, 3]),
    order=st.integers(0, 6),
    odd=st.sampled_from([0, 100, 512]),
    below=st.sampled_from([None, 20000, 60000]),
    extra=st.sampled_from(["", "packed", "snapshot"]),
)
def test_like_bytes(tmp_path_factory, steps, bits, version, order, odd, below, extra):
    directory = tmp_path_factory.mktemp("like")
    size = 48 * 1024 + odd
    base = None
    if below is not None:
        base = directory / "base"
        base.write_bytes(random.Random(below).randbytes(below))
    order = order if version == 3 and extra == "" else 4
    path = create(directory / "disk", size, bits=bits, version=version, order=order, backing=base)
    if extra:
        furnish(path, bits, snapshot=extra == "snapshot")
    contents = base.read_bytes() if base else b""
    old = walk(path).disk(contents)
    model = bytearray(old).ljust((size + 511) & -512, b"\0")
    image = opened(path, backing=True)
    model[size:] = image.read(size, len(model) - size)
    for number, (what, offset, length) in enumerate(steps):
        length = min(length, image.size - offset)
        if what == "write":
            data = bytes([number + 1]) * length
            image.write(offset, data)
            model[offset : offset + length] = data
        elif what in ("zero", "unmap"):
            image.write_zeroes(offset, length, unmap=what == "unmap")
            model[offset : offset + length] = bytes(length)
        elif what == "discard":
            image.discard(offset, length)
            model[offset : offset + length] = image.read(offset, length)
        elif what == "flush":
            image.flush()
        else:
            image.close()
            image = opened(path, backing=True)
        assert image.read(offset, length) == model[offset : offset + length]
    assert image.read(0, image.size) == model
    image.close()
    assert_whole(path, model[:size], contents)
    if extra == "snapshot":
        found = walk(path)
        found.l1_offset = struct.unpack_from(">Q", found.data, found.snapshots_offset)[0]
        assert found.disk(contents) == old
