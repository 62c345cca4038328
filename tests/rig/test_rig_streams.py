from itertools import pairwise

from amdv_rig.machine import StatusPort
from amdv_rig.streams import LineStream, MarkedStream, Tail
from hypothesis import given
from hypothesis import strategies as st

MARKER = b"\0end aab\0"


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


@given(st.binary(max_size=60), st.binary(max_size=20), st.lists(st.integers(0, 200), max_size=12))
def test_all_before_the_marker_and_nothing_after(before: bytes, after: bytes, cuts: list[int]) -> None:
    before = before.replace(MARKER, b"")
    if MARKER in before + MARKER[:-1]:
        return
    got: list[bytes] = []
    stream = MarkedStream(MARKER, got.append)
    for piece in split(before + MARKER + after, cuts):
        stream.feed(piece)
    assert stream.ended
    assert b"".join(got) == before


def test_output_is_passed_on_at_once() -> None:
    got: list[bytes] = []
    stream = MarkedStream(MARKER, got.append)
    stream.feed(b"prompt> ")
    assert got == [b"prompt> "]


def test_what_only_looked_like_the_marker_is_not_lost() -> None:
    got: list[bytes] = []
    stream = MarkedStream(MARKER, got.append)
    stream.feed(b"a" + MARKER[:-1])
    assert got == [b"a"]
    stream.feed(b"b")
    assert b"".join(got) == b"a" + MARKER[:-1] + b"b"
    stream.feed(MARKER[:3])
    stream.close()
    assert b"".join(got).endswith(MARKER[:3])
    assert not stream.ended


def test_lines() -> None:
    got: list[str] = []
    stream = LineStream(got.append)
    for piece in (b"on", b"e\r\ntw", b"o\n", b"rest"):
        stream.feed(piece)
    assert got == ["one", "two"]


def test_the_tail_keeps_the_end() -> None:
    tail = Tail(limit=8)
    for number in range(6):
        tail.feed(b"%d\r\n" % number)
    assert tail.lines(2) == "4\n5"
    assert len(tail.data) <= 8


def test_status_reports() -> None:
    port = StatusPort()
    port.line("ready 3.10")
    assert port.ready is not None
    assert port.status is None
    port.line("exit 9 4.20")
    assert port.status == 9
    assert port.failure is None


def test_a_report_that_makes_no_sense_is_no_status() -> None:
    for line in ("exit x 1", "exit -1 1", "exit", "", "hello"):
        port = StatusPort()
        port.line(line)
        assert port.status is None
        assert port.failure is not None
