"""The console: lossless, prompt, and never quadratic."""

import io
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv import expect as expect_module
from pyhv.console import Console
from pyhv.errors import ConfigError, GuestFailed, GuestPanic, TripleFault, VmmError, VmTimeout

PATIENCE = 5.0


@pytest.fixture
def console() -> Console:
    return Console()


class Waiter(threading.Thread):
    """An `expect` in another thread; it is known to wait before the test goes on."""

    def __init__(self, console: Console, pattern, timeout: float | None = PATIENCE) -> None:
        super().__init__(daemon=True)
        self.outcome: object = None
        self._call = lambda: console.expect(pattern, timeout)
        self.start()
        while not console._waiting:
            self.join(0.001)

    def run(self) -> None:
        try:
            self.outcome = self._call()
        except BaseException as error:
            self.outcome = error

    def result(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.outcome


def test_records_everything_in_order(console):
    for piece in (b"one ", b"two\n", b"\xff\x00", b""):
        console.feed(piece)
    assert console.data == b"one two\n\xff\x00"
    assert console.text == "one two\n\N{REPLACEMENT CHARACTER}\0"


def test_text_is_utf8_also_when_it_came_byte_by_byte(console):
    for byte in "Größe: 5 µs".encode():
        console.feed(bytes((byte,)))
    assert console.text == "Größe: 5 µs"


def test_tail_gives_the_last_lines(console):
    assert console.tail() == ""
    console.feed(b"a\nb\r\nc\nd")
    assert console.tail(2) == "c\nd"
    assert console.tail(3) == "b\nc\nd"
    assert console.tail(99) == "a\nb\nc\nd"
    assert console.tail(0) == ""
    console.feed(b"\n")
    assert console.tail(1) == "d"


def test_sinks_get_all_of_it_and_can_leave(console):
    log, live = io.BytesIO(), bytearray()
    console.feed(b"before ")
    console.add_sink(log.write, replay=True)
    console.add_sink(live.extend)
    sink = live.extend
    console.feed(b"x")
    console.remove_sink(sink)
    console.remove_sink(sink)
    console.feed(b"y")
    assert log.getvalue() == b"before xy"
    assert live == b"x"


def test_a_failing_sink_is_reported_once_and_does_not_stop_the_others():
    errors: list[BaseException] = []
    console = Console(on_sink_error=errors.append)
    good = bytearray()

    def broken(data: bytes) -> None:
        raise BrokenPipeError("gone")

    console.add_sink(broken)
    console.add_sink(good.extend)
    console.feed(b"a")
    console.feed(b"b")
    assert good == b"ab"
    assert [str(error) for error in errors] == ["gone"]


def test_an_error_handler_may_close_the_console():
    console = Console(on_sink_error=lambda error: console.close(VmmError(str(error))))

    def broken(data: bytes) -> None:
        raise OSError("disk full")

    console.add_sink(broken)
    console.feed(b"x")
    with pytest.raises(VmmError, match="disk full"):
        console.expect("y")


def test_a_sink_that_blocks_does_not_hold_up_who_expects(console):
    go_on, blocked = threading.Event(), threading.Event()

    def slow(data: bytes) -> None:
        blocked.set()
        go_on.wait(PATIENCE)

    console.add_sink(slow)
    feeder = threading.Thread(target=lambda: console.feed(b"prompt> "))
    feeder.start()
    assert blocked.wait(PATIENCE)
    assert console.expect("prompt>", 0)
    console.close()
    assert feeder.is_alive()
    go_on.set()
    feeder.join(PATIENCE)


def test_expect_finds_what_is_there_and_goes_on_after_it(console):
    console.feed(b"first login: second login: ")
    assert console.expect(r"(\w+) login:", 0).group(1) == "first"
    assert console.expect(r"(\w+) login:", 0).group(1) == "second"
    with pytest.raises(VmTimeout):
        console.expect("login:", 0)


def test_bytes_patterns_and_compiled_ones_keep_their_kind_and_flags(console):
    console.feed(b"Alpha\xffBETA gamma")
    assert console.expect(rb"a(.)B", 0).group(1) == b"\xff"
    assert console.expect(re.compile("eta", re.IGNORECASE), 0).group() == "ETA"
    assert console.expect(re.compile(rb"(?P<word>g\w+)"), 0)["word"] == b"gamma"


def test_position_is_exact_after_text_that_is_not_ascii(console):
    console.feed("é€😀".encode() + b"\xff\xe2\x82" + b"X1X2")
    assert console.expect("X", 0)
    assert console.expect("[^X]", 0).group() == "1"
    assert console.expect("X2$", 0)


def test_anchors_and_lookbehind_see_what_was_matched_before(console):
    console.feed(b"one\ntwo three")
    console.expect("one", 0)
    assert console.expect("(?m)^two", 0)
    assert console.expect("(?<=two )three", 0)
    console.feed(b"four")
    with pytest.raises(VmTimeout):
        console.expect("^four", 0)


def test_waits_and_wakes_for_output(console):
    waiter = Waiter(console, "log(in)")
    console.feed(b"lo")
    console.feed(b"gin")
    assert waiter.result().group(1) == "in"


def test_two_waiters_are_both_woken(console):
    first, second = Waiter(console, "aaa"), Waiter(console, "bbb")
    console.feed(b"aaabbb")
    assert first.result() and second.result()


def test_a_match_longer_than_the_lookback_is_found_when_output_pauses(console):
    waiter = Waiter(console, "(?s)BEGIN.*END")
    console.feed(b"BEGIN")
    for _ in range(20):
        console.feed(b"x" * 1000)
    console.feed(b"END")
    assert len(waiter.result().group()) == 20_008


def test_timeout_tells_what_was_sought_and_the_tail(console):
    console.feed(b"booting\nstuck here")
    with pytest.raises(VmTimeout, match=r"(?s)no match for 'login:' within 0.01 s.*stuck here"):
        console.expect("login:", 0.01)


def test_the_guests_end_fails_at_once_but_what_it_printed_counts(console):
    waiter = Waiter(console, "never", None)
    console.feed(b"last words")
    console.close(TripleFault("the guest ended (triple-fault)"))
    error = waiter.result()
    assert type(error) is TripleFault
    assert "triple-fault" in str(error) and "'never'" in str(error) and "last words" in str(error)
    assert console.closed
    assert console.expect("last", None)
    with pytest.raises(TripleFault):
        console.expect("more", None)


def test_close_takes_a_factory_or_any_error_and_the_first_counts(console):
    console.close(VmmError)
    console.close(GuestFailed)
    with pytest.raises(VmmError, match="the guest ended: no match for 'x'"):
        console.expect("x")
    other = Console()
    other.close(ConfigError("as it is"))
    with pytest.raises(ConfigError, match=r"^as it is$"):
        other.expect("x")
    plain = Console()
    plain.close()
    with pytest.raises(GuestFailed):
        plain.expect("x")


def test_a_linux_panic_fails_expectations_at_once_and_is_told_once():
    panics: list[str] = []
    console = Console(on_panic=panics.append)
    waiter = Waiter(console, "login:", None)
    for byte in b"[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root\r\nKernel panic - not syncing: x\n":
        console.feed(bytes((byte,)))
    error = waiter.result()
    assert type(error) is GuestPanic
    assert "Unable to mount root" in str(error)
    assert panics == ["[ 1.0] Kernel panic - not syncing: VFS: Unable to mount root"]
    assert console.panic == panics[0]


@pytest.mark.parametrize(
    ("line", "panics"),
    [
        (b"Kernel panic - not syncing: x", True),
        (b"[    1.25] Kernel panic - not syncing: x", True),
        (b"[    1.25][   T1] Kernel panic - not syncing: x", True),
        (b"localhost login: [   12.345678] Kernel panic - not syncing: Fatal exception", True),
        (b"grep 'Kernel panic - not syncing' log", False),
        (b"[    1.25] systemd: watching for Kernel panic - not syncing", False),
    ],
)
def test_what_is_a_linux_panic(console, line, panics):
    console.feed(b"before\r\n" + line)
    assert console.panic is None
    console.feed(b"\r\n")
    assert (console.panic is not None) == panics


def test_a_panic_that_was_expected_is_a_match(console):
    console.feed(b"Kernel panic - not syncing: test\n")
    assert console.expect("Kernel panic", 0)


def test_watched_patterns_can_be_chosen():
    assert Console(panic_patterns=()).panic is None
    quiet = Console(panic_patterns=())
    quiet.feed(b"Kernel panic - not syncing: x\n")
    assert quiet.panic is None
    own = Console(panic_patterns=(rb"ABORT: .*", rb"DIE"))
    own.feed(b"fine\nABORT: 7\n")
    assert own.panic == "ABORT: 7"


def test_send_encodes_and_needs_an_input(console):
    typed: list[bytes] = []
    with_input = Console(typed.append)
    with_input.send("é\n")
    with_input.send(b"\x03")
    assert typed == ["é\n".encode(), b"\x03"]
    with pytest.raises(ConfigError, match="no input"):
        console.send("x")


def test_memory_is_bounded_and_says_what_it_dropped():
    console = Console(limit=1000)
    log = bytearray()
    console.add_sink(log.extend)
    for number in range(500):
        console.feed(b"line %03d\n" % number)
    assert len(console.data) <= 1000
    assert console.dropped + len(console.data) == len(log) == 4500
    assert bytes(log).endswith(console.data)
    assert console.expect("line 499", 0)
    console.feed(b"z" * 5000)
    assert len(console.data) <= 1000
    assert console.expect("z", 0)
    with pytest.raises(ConfigError, match="limit"):
        Console(limit=0)


def test_a_search_through_much_output_is_linear(console, monkeypatch):
    searched = 0
    original = expect_module.Search._search

    def counting(self, data, dropped, start):
        nonlocal searched
        searched += len(data) - (start - dropped)
        return original(self, data, dropped, start)

    monkeypatch.setattr(expect_module.Search, "_search", counting)
    search = expect_module.Search(re.compile("never"), 0)
    data = bytearray()
    for _ in range(2000):
        data += b"x" * 512
        search.look(data, 0, full=False)
    per_look = expect_module.LOOKBACK + 512
    assert searched < 2000 * per_look + 6 * len(data)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=12), max_size=12), st.integers(0, 3))
def test_incremental_search_agrees_with_one_search(pieces, look_every):
    pattern = re.compile(rb"(?s)a.{0,5}b")
    console = Console(panic_patterns=())
    search = expect_module.Search(pattern, 0)
    data = bytearray()
    for index, piece in enumerate(pieces):
        console.feed(piece)
        data += piece
        if look_every and index % look_every == 0 and search.look(data, 0, full=False):
            break
    found = search.look(data, 0, full=True)
    whole = pattern.search(bytes(data))
    assert (found is None) == (whole is None)
    if found is not None and whole is not None:
        assert found.group() == whole.group()
        assert search.end == whole.end()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 5))
def test_text_matches_consume_exactly_their_bytes(data, width):
    console = Console(panic_patterns=())
    console.feed(data)
    pieces: list[str] = []
    while True:
        try:
            pieces.append(console.expect(f"(?s).{{1,{width}}}", 0).group())
        except VmTimeout:
            break
    assert "".join(pieces) == console.text


@pytest.mark.parametrize("pattern", ["(", b"[a", "a{2,1}"])
def test_what_is_no_pattern(pattern):
    with pytest.raises(ConfigError, match=r"^expect: .* is not a regular expression"):
        Console().expect(pattern, 0)
