"""Lists of buffers."""

from hypothesis import given
from hypothesis import strategies as st

from pyhv.block.views import ZEROS, Cursor, clear, zeros


def as_views(pieces):
    return [memoryview(bytearray(piece)) for piece in pieces]


@given(st.lists(st.binary(max_size=20), max_size=10), st.lists(st.integers(0, 30), max_size=12))
def test_a_cursor_takes_everything_in_order(pieces, sizes):
    whole = b"".join(pieces)
    cursor = Cursor(as_views(pieces))
    taken = b""
    for size in sizes:
        views = cursor.take(size)
        assert all(len(view) for view in views)
        part = b"".join(views)
        assert len(part) == min(size, len(whole) - len(taken))
        taken += part
    assert taken + b"".join(cursor.take(len(whole))) == whole


def test_taken_views_are_the_memory_itself():
    memory = bytearray(b"abcdef")
    cursor = Cursor([memoryview(memory)[:3], memoryview(memory)[3:]])
    cursor.take(2)
    for view in cursor.take(2):
        view[:] = b"-" * len(view)
    assert memory == b"ab--ef"


def test_clear_and_zeros():
    views = as_views([b"x" * (len(ZEROS) * 2 + 7), b"", b"y"])
    clear(views)
    assert not any(map(any, views))
    for size in (0, 1, len(ZEROS), 3 * len(ZEROS) + 1):
        assert b"".join(zeros(size)) == bytes(size)
