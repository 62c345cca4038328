"""When the host loses its power: what was flushed is there, and the image is whole but for clusters that leak.

Writes since the last sync reach the disk in any order and by sectors; each may have been lost.
"""

import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qcow2_files import Editor, Walk, create, furnish

from pyhv.block import fallocate
from pyhv.block.open import open_image

SECTOR = 512


class Journal:
    """What was done to a file: ("write", offset, bytes), ("sync",), and marks of the test."""

    def __init__(self, path, monkeypatch):
        self.start = path.read_bytes()
        self.steps = []
        self.real = os.pwritev
        monkeypatch.setattr(os, "pwritev", self.write)
        monkeypatch.setattr(os, "fdatasync", lambda fd: self.steps.append(("sync",)))
        monkeypatch.setattr(fallocate, "punch_hole", self.punch)

    def write(self, fd, views, offset):
        done = self.real(fd, views, offset)
        self.steps.append(("write", offset, b"".join(views)[:done]))
        return done

    def punch(self, fd, offset, length):
        self.real(fd, [bytes(length)], offset)
        self.steps.append(("write", offset, bytes(length)))

    def mark(self, *what):
        self.steps.append(("mark", *what))

    def after(self, moment, survives):
        """The file's bytes when power is lost at a step; `survives()` says whether a sector that was not synced does."""
        data = bytearray(self.start)
        waiting = []
        for step in self.steps[:moment]:
            if step[0] == "sync":
                for offset, piece in waiting:
                    store(data, offset, piece)
                waiting = []
            elif step[0] == "write":
                waiting += sectors(*step[1:])
        for offset, piece in waiting:
            if survives():
                store(data, offset, piece)
        return data


def sectors(offset, data):
    while data:
        length = SECTOR - offset % SECTOR
        yield offset, data[:length]
        offset, data = offset + length, data[length:]


def store(data, offset, piece):
    data += bytes(max(0, offset + len(piece) - len(data)))
    data[offset : offset + len(piece)] = piece


def assert_survived(journal, moment, survives, size):
    flushed, touched = bytes(size), set()
    for step in journal.steps[:moment]:
        if step[:2] == ("mark", "flushed"):
            flushed, touched = step[2], set()
        elif step[:2] == ("mark", "change"):
            touched.update(range(step[2] // SECTOR, -(-step[3] // SECTOR)))
    found = Walk(journal.after(moment, survives))
    assert found.check()[0] == []
    disk = found.disk()
    for n in set(range(size // SECTOR)) - touched:
        where = slice(n * SECTOR, (n + 1) * SECTOR)
        assert disk[where] == flushed[where], f"sector {n} is lost"
    return found


STEP = st.tuples(
    st.sampled_from(["write", "write", "write", "zero", "unmap", "discard", "flush", "flush"]),
    st.integers(0, 63 * 1024),
    st.one_of(st.integers(1, 3000), st.sampled_from([512, 1024, 8192])),
)


@settings(max_examples=150)
@given(
    steps=st.lists(STEP, min_size=2, max_size=25),
    bits=st.sampled_from([9, 10, 12]),
    order=st.sampled_from([4, 6]),
    extra=st.sampled_from(["", "packed", "snapshot"]),
    seed=st.integers(0, 1000),
    odds=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
)
def test_power_is_lost(tmp_path_factory, steps, bits, order, extra, seed, odds):
    size = 64 * 1024
    path = create(tmp_path_factory.mktemp("crash") / "disk", size, bits=bits, order=order)
    if extra:
        furnish(path, bits, snapshot=extra == "snapshot")
    rng = random.Random(seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        journal = Journal(path, monkeypatch)
        image = open_image(str(path), "qcow2")
        image._max_pending = rng.choice([4, 1000])
        journal.mark("flushed", image.read(0, size))
        for number, (what, offset, length) in enumerate(steps):
            length = min(length, size - offset)
            if what == "flush":
                image.flush()
                journal.mark("flushed", image.read(0, size))
                continue
            journal.mark("change", offset // SECTOR * SECTOR, offset + length)
            if what == "write":
                image.write(offset, bytes([number + 100]) * length)
            elif what == "discard":
                image.discard(offset, length)
            else:
                image.write_zeroes(offset, length, unmap=what == "unmap")
        image.close()
    moments = {len(journal.steps), *(rng.randrange(1, len(journal.steps) + 1) for _ in range(8))}
    for moment in moments:
        assert_survived(journal, moment, lambda: rng.random() < odds, size)


def test_power_is_lost_at_every_moment(tmp_path):
    """Blocks of 64 counts, so that every flush has new ones."""
    size = 96 << 10
    path = create(tmp_path / "disk", size, bits=9, order=6)
    with pytest.MonkeyPatch.context() as monkeypatch:
        journal = Journal(path, monkeypatch)
        image = open_image(str(path), "qcow2")
        journal.mark("flushed", bytes(size))
        for start in range(0, size, 24 << 10):
            journal.mark("change", start, start + (24 << 10))
            image.write(start, bytes([start >> 10 | 1]) * (24 << 10))
            image.flush()
            journal.mark("flushed", image.read(0, size))
        image.close()
    rng = random.Random(2)
    for moment in range(len(journal.steps) + 1):
        for odds in (0.2, 0.8):
            assert_survived(journal, moment, lambda odds=odds: rng.random() < odds, size)


def test_power_is_lost_while_the_refcount_table_grows(tmp_path):
    """A table of one cluster of 512 bytes, blocks of 64 counts of 64 bits: it grows after 2 MiB."""
    size = 3 << 20
    path = create(tmp_path / "disk", 1 << 20, bits=9, order=6)
    editor = Editor(path)
    entries = size // (512 * 64)
    where = editor.append(bytes(entries * 8))
    editor.data[24:32] = size.to_bytes(8, "big")
    editor.data[36:48] = entries.to_bytes(4, "big") + where.to_bytes(8, "big")
    for cluster in range(3, where // 512):
        editor.set_count(cluster, 0)
    editor.save()
    with pytest.MonkeyPatch.context() as monkeypatch:
        journal = Journal(path, monkeypatch)
        image = open_image(str(path), "qcow2")
        journal.mark("flushed", bytes(size))
        step = 32 << 10
        for start in range(0, size, step):
            journal.mark("change", start, start + step)
            image.write(start, (start // step + 1).to_bytes(2, "big") * (step // 2))
            if start % (4 * step) == 0:
                image.flush()
                journal.mark("flushed", image.read(0, size))
        image.close()
    grown = [n for n, step in enumerate(journal.steps) if step[0] == "write" and step[1] == 48]
    assert grown
    rng = random.Random(1)
    for middle in grown:
        for moment in range(middle - 5, middle + 12):
            found = assert_survived(journal, moment, lambda: rng.random() < 0.5, size)
            assert found.ref_clusters >= 1
