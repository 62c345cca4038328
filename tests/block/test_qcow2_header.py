"""Headers that lie, and tables that cannot be: one line of a ConfigError when the image is opened, nothing else."""

import os
import struct
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from qcow2_files import COPIED, OFFSET, Editor, create, extension, header, walk

from pyhv.block.open import open_image
from pyhv.block.qcow2 import header as h
from pyhv.errors import ConfigError

SIZE = 1 << 18
BITS = 12
CLUSTER = 1 << BITS


@pytest.fixture
def path(tmp_path):
    return create(tmp_path / "disk", SIZE, bits=BITS)


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def message(path, **options):
    with pytest.raises(ConfigError) as error:
        open_image(str(path), "qcow2", **options)
    text = str(error.value)
    assert text.startswith(f"disk: {str(path)!r}: ") and "\n" not in text
    return text.removeprefix(f"disk: {str(path)!r}: ")


def both(path):
    """The message, which is the same for reading and for writing."""
    text = message(path, readonly=True)
    assert message(path) == text
    return text


LIES = {
    "magic": (0, b"QFI\0", "not a qcow2 image"),
    "version": (4, struct.pack(">I", 4), "qcow2 version 4 is not 2 or 3"),
    "version 0": (4, struct.pack(">I", 0), "qcow2 version 0 is not 2 or 3"),
    "clusters of 256": (20, struct.pack(">I", 8), "clusters of 2^8 bytes; allowed are 2^9 to 2^21"),
    "clusters of 4M": (20, struct.pack(">I", 22), "clusters of 2^22 bytes; allowed are 2^9 to 2^21"),
    "cluster bits": (20, b"\xff" * 4, "clusters of 2^4294967295 bytes; allowed are 2^9 to 2^21"),
    "encryption": (32, struct.pack(">I", 1), "it is encrypted, which is not supported"),
    "size": (24, struct.pack(">Q", 1 << 40), f"an L1 table of 1 entries for {1 << 40} bytes"),
    "size that overflows": (24, b"\xff" * 8, f"a disk of {(1 << 64) - 1} bytes"),
    "l1 size": (36, struct.pack(">I", 1 << 23), f"an L1 table of {1 << 23} entries for {SIZE} bytes"),
    "l1 too small": (36, struct.pack(">I", 0), f"an L1 table of 0 entries for {SIZE} bytes"),
    "l1 beyond the end": (40, struct.pack(">Q", 1 << 40), "the L1 table at 0x10000000000 is not inside the file"),
    "l1 offset overflows": (40, b"\xff" * 6 + b"\xf0\0", "the L1 table at 0xfffffffffffff000 is not inside the file"),
    "l1 not aligned": (40, struct.pack(">Q", 3 * CLUSTER + 8), "the L1 table at 0x3008 is not inside the file"),
    "l1 in the header": (40, struct.pack(">Q", 0), "the L1 table at 0x0 is not inside the file"),
    "refcount table beyond": (48, struct.pack(">Q", 1 << 40), "the refcount table at 0x10000000000 is not inside the file"),
    "refcount table too large": (56, struct.pack(">I", 1 << 30), f"a refcount table of {1 << 30} clusters"),
    "no refcount table": (56, struct.pack(">I", 0), "a refcount table of 0 clusters"),
    "snapshots": (60, struct.pack(">I", 1 << 20), f"{1 << 20} snapshots"),
    "snapshot table": (60, struct.pack(">IQ", 3, 1 << 30), "the snapshot table at 0x40000000 is not inside the file"),
    "unknown feature": (72, struct.pack(">Q", 1 << 40), "it needs features that are not supported: bit 40"),
    "external data": (72, struct.pack(">Q", 4), "it needs features that are not supported: external data file"),
    "two features": (
        72, struct.pack(">Q", 1 << 63 | 16), "it needs features that are not supported: extended L2 entries, bit 63",
    ),
    "compression without type": (72, struct.pack(">Q", 8), "compression type 0 does not fit its feature bit"),
    "refcount order": (96, struct.pack(">I", 7), "reference counts of 2^7 bits"),
    "header length": (100, struct.pack(">I", 72), "a header of 72 bytes"),
    "header length not in eights": (100, struct.pack(">I", 108), "a header of 108 bytes"),
    "header length beyond": (100, struct.pack(">I", CLUSTER + 8), f"a header of {CLUSTER + 8} bytes"),
    "extension": (104, struct.pack(">II", 18, CLUSTER), f"header extension 0x12 of {CLUSTER} bytes leaves the first cluster"),
    "backing name": (8, struct.pack(">QI", CLUSTER - 4, 8), f"a backing file's name of 8 bytes at {CLUSTER - 4:#x}"),
    "backing name of 1024": (8, struct.pack(">QI", 1024, 1024), "a backing file's name of 1024 bytes at 0x400"),
    "backing name beyond": (8, struct.pack(">QI", 1 << 63, 8), "a backing file's name of 8 bytes at 0x8000000000000000"),
    "backing name of nothing": (8, struct.pack(">QI", 1024, 0), "a backing file's name of 0 bytes at 0x400"),
    "backing name with NUL": (8, struct.pack(">QI", 1024, 8), "a backing file's name with a NUL"),
    "l1 on refcounts": (40, struct.pack(">Q", CLUSTER), "the refcount table at 0x1000 overlaps another table"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_lies(path, lie):
    offset, data, expected = LIES[lie]
    patch(path, offset, data)
    assert both(path) == expected


@pytest.mark.parametrize("length", [0, 3, 71, 72, 103, 104, CLUSTER, 3 * CLUSTER])
def test_short_files(path, length):
    os.truncate(path, length)
    text = both(path)
    assert text == ("too short for a qcow2 header" if length < 104 else text)


@pytest.mark.parametrize("kind", [1, 2])
def test_compression_types(tmp_path, kind):
    path = create(tmp_path / "disk", SIZE, bits=BITS, compression=kind, incompatible=8)
    if kind == 1:
        open_image(str(path), "qcow2").close()
        patch(path, 72, bytes(8))
        assert both(path) == "compression type 1 does not fit its feature bit"
    else:
        assert both(path) == "compression type 2 is not supported"


def test_zstd_without_its_library(tmp_path, monkeypatch):
    path = create(tmp_path / "disk", SIZE, bits=BITS, compression=1, incompatible=8)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    assert both(path) == "it is compressed by zstd, which needs: pip install zstandard"


def test_unknown_extensions_and_features_that_may_be_ignored(tmp_path):
    path = create(tmp_path / "disk", SIZE, bits=BITS, compatible=1 << 63 | 1)
    patch(path, 104, extension(0x6803F857, b"\0\0dirty bit" + bytes(37)) + extension(0xABCD, b"odd") + bytes(8))
    image = open_image(str(path), "qcow2")
    assert image.size == SIZE
    image.close()


@pytest.mark.parametrize(("bit", "state"), [(1, "was not closed properly"), (2, "damaged")])
def test_dirty_and_corrupt_images_are_only_read(tmp_path, bit, state):
    path = create(tmp_path / "disk", SIZE, bits=BITS, incompatible=bit)
    before = path.read_bytes()
    image = open_image(str(path), "qcow2", readonly=True)
    assert image.read(0, SIZE) == bytes(SIZE)
    image.close()
    open_image(str(path), "qcow2", overlay=True).close()
    assert message(path) == f"the image {state}; mend it with: qemu-img check -r all {path}"
    assert path.read_bytes() == before


TABLES = {
    "an L2 table beyond": (3 * CLUSTER, 1 << 40 | COPIED, "an L2 table at 0x10000000000 is not inside the file"),
    "an L2 table not aligned": (3 * CLUSTER, 5 * CLUSTER + 512, "an L2 table at 0x5200 is not inside the file"),
    "reserved bits": (3 * CLUSTER, 1 << 60 | 4 * CLUSTER, "an L2 table at 0x4000 is not inside the file"),
    "low reserved bits": (3 * CLUSTER, 4 * CLUSTER | 1, "an L2 table at 0x4000 is not inside the file"),
    "a flag alone": (3 * CLUSTER, COPIED, "an L2 table at 0x0 is not inside the file"),
    "an L1 table as L2 table": (3 * CLUSTER, 3 * CLUSTER | COPIED, "an L2 table at 0x3000 overlaps another table"),
    "a refcount table as L2 table": (3 * CLUSTER, CLUSTER | COPIED, "an L2 table at 0x1000 overlaps another table"),
}


@pytest.mark.parametrize("lie", TABLES)
def test_lies_of_the_l1_table(path, lie):
    editor = Editor(path)
    editor.data_cluster(0, b"x")
    editor.save()
    offset, entry, expected = TABLES[lie]
    patch(path, offset, struct.pack(">Q", entry))
    assert both(path) == expected


def test_one_l2_table_twice(tmp_path):
    path = create(tmp_path / "disk", 4 << 20, bits=BITS)
    editor = Editor(path)
    editor.data_cluster(0, b"x")
    editor.save()
    patch(path, 3 * CLUSTER + 8, editor.path.read_bytes()[3 * CLUSTER : 3 * CLUSTER + 8])
    assert both(path) == "an L2 table at 0x5000 overlaps another table"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (1 << 40, "a refcount block at 0x10000000000 is not inside the file"),
        (2 * CLUSTER + 512, "a refcount block at 0x2200 is not inside the file"),
        (CLUSTER, "a refcount block at 0x1000 overlaps another table"),
        (3 * CLUSTER, "a refcount block at 0x3000 overlaps another table"),
    ],
)
def test_lies_of_the_refcount_table_matter_to_writers(path, entry, expected):
    patch(path, CLUSTER, struct.pack(">Q", entry))
    open_image(str(path), "qcow2", readonly=True).close()
    assert message(path) == expected


@pytest.mark.parametrize(
    ("where", "data", "expected"),
    [
        (0, struct.pack(">Q", 1 << 50), "the L1 table of snapshot 0 is not inside the file"),
        (0, struct.pack(">Q", 4 * CLUSTER + 8), "the L1 table of snapshot 0 is not inside the file"),
        (0, struct.pack(">QI", 4 * CLUSTER, 1 << 31), "the L1 table of snapshot 0 is not inside the file"),
        (0, struct.pack(">Q", 3 * CLUSTER), "the L1 table of snapshot 0 at 0x3000 overlaps another table"),
        (36, struct.pack(">I", 0xFFFF_FFFF), "snapshot 1 is not inside the file"),
    ],
)
def test_lies_of_snapshots_matter_to_writers(path, where, data, expected):
    editor = Editor(path)
    editor.data_cluster(0, b"x")
    editor.snapshot()
    editor.save()
    patch(path, 60, struct.pack(">I", 2 if "snapshot 1" in expected else 1))
    patch(path, walk_snapshots(path) + where, data)
    open_image(str(path), "qcow2", readonly=True).close()
    assert message(path) == expected


def walk_snapshots(path):
    return struct.unpack_from(">Q", Path(path).read_bytes(), 64)[0]


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "version": st.integers(0, 5),
        "backing": st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 32) - 1)),
        "bits": st.integers(0, 64),
        "size": st.one_of(st.integers(0, 1 << 40), st.integers(0, (1 << 64) - 1)),
        "crypt": st.integers(0, 2),
        "l1": st.tuples(st.integers(0, 1 << 23), st.integers(0, (1 << 64) - 1).map(lambda n: n & -CLUSTER)),
        "refs": st.tuples(st.integers(0, (1 << 64) - 1).map(lambda n: n & -CLUSTER), st.integers(0, (1 << 32) - 1)),
        "snapshots": st.tuples(st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)),
        "incompatible": st.integers(0, (1 << 64) - 1) | st.just(0),
        "autoclear": st.integers(0, (1 << 64) - 1),
        "order": st.integers(0, (1 << 32) - 1),
        "length": st.integers(0, 1 << 10),
        "compression": st.integers(0, 255),
        "extensions": st.binary(max_size=64),
    },
)


@given(FIELDS, st.integers(0, 1 << 40))
def test_any_fields(fields, file_size):
    data = header(**fields).ljust(1024, b"\0")
    try:
        found = h.parse(data, file_size, "disk")
    except ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert found.l1_offset + 8 * found.l1_size <= max(file_size, found.l1_offset * (found.l1_size > 0))


@given(st.binary(max_size=200), st.integers(0, 1 << 64))
@example(struct.pack(">II", h.MAGIC, 3) + b"\xff" * 300, 1 << 64)
def test_any_bytes(data, file_size):
    for prefix in (b"", struct.pack(">II", h.MAGIC, 2), struct.pack(">II", h.MAGIC, 3)):
        with pytest.raises(ConfigError):
            h.parse(prefix + data, file_size, "disk") if prefix + data else h.parse(b"", 0, "disk")
            raise ConfigError("it was good by chance")


@settings(max_examples=200)
@given(st.data())
def test_files_with_any_bytes_changed(tmp_path_factory, data):
    """Opened, read and written in whole: all that comes out is ConfigError and OSError."""
    path = create(tmp_path_factory.mktemp("any") / "disk", SIZE, bits=BITS, version=data.draw(st.sampled_from([2, 3])))
    editor = Editor(path)
    for n in range(4):
        editor.data_cluster(n * 3, bytes([n]) * CLUSTER)
    editor.pack({40: b"packed" * 600 + bytes(CLUSTER - 3600), 41: bytes(CLUSTER)})
    if data.draw(st.booleans()):
        editor.snapshot()
    entries = [3 * CLUSTER] + [(walk_entry(editor) & OFFSET) + 8 * n for n in range(64)] + [CLUSTER, CLUSTER + 8]
    interesting = st.sampled_from([0, 1, COPIED, 1 << 62, OFFSET, (1 << 64) - 1, *(n * CLUSTER | COPIED for n in range(12))])
    for _ in range(data.draw(st.integers(1, 6))):
        if data.draw(st.booleans()):
            at = data.draw(st.sampled_from(entries))
            editor.put(at, data.draw(interesting | st.integers(0, (1 << 64) - 1)))
        else:
            at = data.draw(st.one_of(st.integers(0, 150), st.integers(0, len(editor.data) - 1)))
            editor.data[at] = data.draw(st.integers(0, 255))
    editor.save()
    for options in ({"readonly": True}, {}):
        try:
            image = open_image(str(path), "qcow2", **options)
        except ConfigError as error:
            assert "\n" not in str(error)
            continue
        touch(image, options)
        try:
            image.close()
        except OSError:
            continue
    assert path.stat().st_blocks * 512 <= len(editor.data) + 2 * SIZE


def walk_entry(editor):
    return struct.unpack_from(">Q", editor.data, 3 * CLUSTER)[0]


def touch(image, options):
    top = min(image.size, SIZE)
    for offset in range(0, top, CLUSTER // 2):
        for call in (
            lambda offset=offset: image.read(offset, min(CLUSTER // 2, top - offset)),
            lambda offset=offset: options or image.write(offset, b"w" * min(700, top - offset)),
            lambda offset=offset: options or image.discard(offset, min(CLUSTER * 2, top - offset)),
            lambda offset=offset: options or image.write_zeroes(offset, min(CLUSTER, top - offset), unmap=offset % 3 == 0),
            lambda offset=offset: options or offset % 65536 or image.flush(),
        ):
            try:
                call()
            except OSError:
                continue


def test_the_builder_makes_whole_images(path):
    assert walk(path).check() == ([], [])
