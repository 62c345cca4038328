"""A process that is killed in the middle of its work: what it had flushed is in the file."""

import subprocess
import sys

import pytest
from qcow2_files import Editor, create, walk

from pyhv.block.open import open_image

SIZE = 256 << 10
STEP = 5000
CHILD = """
import sys
from pyhv.block.open import open_image

path, format, size, step = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
image = open_image(path, format)
turn = 0
while True:
    turn += 1
    at = turn * 7919 * 64 % (size - step)
    image.write(at, turn.to_bytes(4, "little") * (step // 4))
    image.discard(turn * 4096 % size, 4096)
    image.write(turn * 4096 % size, bytes(4096))
    image.flush()
    sys.stdout.write(f"{turn}\\n")
    sys.stdout.flush()
"""


def expected(before, turns):
    """The disk after so many turns of the child."""
    disk = bytearray(before)
    for turn in range(1, turns + 1):
        at = turn * 7919 * 64 % (SIZE - STEP)
        disk[at : at + STEP] = turn.to_bytes(4, "little") * (STEP // 4)
        at = turn * 4096 % SIZE
        disk[at : at + 4096] = bytes(4096)
    return disk


def make(path, format):
    before = bytes(range(256)) * (SIZE // 256)
    if format == "raw":
        path.write_bytes(before)
    else:
        create(path, SIZE, bits=9)
        editor = Editor(path)
        for n in range(0, SIZE // 512, 3):
            editor.data_cluster(n, before[n * 512 : n * 512 + 512])
        before = editor.walk.disk()
        editor.snapshot()
        editor.save()
    return before


@pytest.mark.parametrize("turns", [1, 2, 7, 40])
@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_killed(tmp_path, format, turns):
    path = tmp_path / "disk"
    before = make(path, format)
    command = [sys.executable, "-c", CHILD, path, format, str(SIZE), str(STEP)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        for n in range(1, turns + 1):
            assert child.stdout.readline() == f"{n}\n"
    finally:
        child.kill()
        rest = child.communicate()[0]
    done = turns + rest.count("\n")
    if format == "qcow2":
        found = walk(path)
        assert found.check()[0] == []
        disk = found.disk()
    else:
        disk = path.read_bytes()
    sure, next_turn = expected(before, done), done + 1  # of which something may be there
    places = ((next_turn * 7919 * 64 % (SIZE - STEP), STEP), (next_turn * 4096 % SIZE, 4096))
    under_way = {n // 512 for start, length in places for n in range(start, start + length)}
    for sector in set(range(SIZE // 512)) - under_way:
        assert disk[sector * 512 : sector * 512 + 512] == sure[sector * 512 : sector * 512 + 512]
    image = open_image(str(path), format)  # and it can be used on
    image.write(0, b"on it goes")
    image.close()
    if format == "qcow2":
        assert walk(path).check()[0] == []
