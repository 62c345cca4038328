"""The event loop and its clock, with real threads and no sleeps that matter."""

import gc
import os
import socket
import threading
import time

import pytest

from pyhv.errors import VmmError
from pyhv.loop import BATCH, EventLoop

PATIENCE = 5.0


class Rig:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.errors: list[BaseException] = []
        self.loop = EventLoop(self.lock, on_error=self.errors.append)
        self.clock = self.loop.clock

    def settle(self) -> None:
        """Wait until everything queued before has run."""
        done = threading.Event()
        self.loop.call_soon(done.set)
        assert done.wait(PATIENCE)


@pytest.fixture
def rig():
    rig = Rig()
    yield rig
    rig.loop.close()


def open_fds() -> set[str]:
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


def test_nothing_exists_before_use():
    threads, fds = threading.active_count(), open_fds()
    rig = Rig()
    rig.clock.now_ns()
    assert not rig.loop.running
    assert (threading.active_count(), open_fds()) == (threads, fds)
    rig.loop.close()


def test_close_reaps_thread_and_descriptors():
    threads, fds = threading.active_count(), open_fds()
    rig = Rig()
    rig.settle()
    assert threading.active_count() == threads + 1
    rig.loop.close()
    rig.loop.close()
    assert (threading.active_count(), open_fds()) == (threads, fds)


def test_timers_fire_in_order_on_the_loops_thread_with_the_lock_held(rig):
    order: list[tuple[int, str]] = []
    held: list[bool] = []
    done = threading.Event()

    def fire(number: int) -> None:
        order.append((number, threading.current_thread().name))
        free = []
        other = threading.Thread(target=lambda: free.append(rig.lock.acquire(blocking=False)))
        other.start()
        other.join()
        held.append(free == [False])
        if number == 3:
            done.set()

    now = rig.clock.now_ns()
    for number, delay in ((2, 2_000_000), (3, 3_000_000), (1, 1_000_000)):
        rig.clock.call_at(now + delay, lambda number=number: fire(number))
    assert done.wait(PATIENCE)
    assert [number for number, _ in order] == [1, 2, 3]
    assert {name for _, name in order} == {"pyhv-loop"}
    assert held == [True, True, True]


def test_a_timer_never_fires_early_and_a_past_one_fires_at_once(rig):
    seen: list[int] = []
    done = threading.Event()
    deadline = rig.clock.now_ns() + 3_000_000

    def fire() -> None:
        seen.append(rig.clock.now_ns())
        done.set()

    rig.clock.call_at(deadline, fire)
    assert done.wait(PATIENCE)
    assert seen[0] >= deadline
    done.clear()
    rig.clock.call_at(-5, fire)
    assert done.wait(PATIENCE)


def test_an_earlier_timer_wakes_the_sleeper(rig):
    done = threading.Event()
    rig.clock.call_at(rig.clock.now_ns() + 3600 * 10**9, lambda: None)
    rig.settle()
    rig.clock.call_at(rig.clock.now_ns() + 1_000_000, done.set)
    assert done.wait(PATIENCE)


def test_a_timer_cancelled_while_the_loop_waits_for_the_lock_does_not_fire(rig):
    fired: list[int] = []
    with rig.lock:
        timer = rig.clock.call_at(0, lambda: fired.append(1))
        time.sleep(0.01)
        timer.cancel()
    rig.settle()
    assert not fired


def test_a_timer_that_rearms_itself_at_once_does_not_starve_calls(rig):
    count = 0
    stop = False

    def again() -> None:
        nonlocal count
        count += 1
        if not stop:
            rig.clock.call_at(0, again)

    rig.clock.call_at(0, again)
    rig.settle()
    rig.settle()
    stop = True
    rig.settle()
    assert count > BATCH


def test_errors_are_reported_and_the_loop_goes_on(rig):
    def fail() -> None:
        raise ValueError("from a callback")

    rig.loop.call_soon(fail)
    rig.clock.call_at(0, fail)
    rig.settle()
    rig.settle()
    assert [str(error) for error in rig.errors] == ["from a callback"] * 2


def test_even_system_exit_is_reported(rig):
    def leave() -> None:
        raise SystemExit(3)

    rig.loop.call_soon(leave)
    rig.settle()
    assert [type(error) for error in rig.errors] == [SystemExit]


def test_calls_from_many_threads_all_run_in_each_ones_order(rig):
    got: list[tuple[int, int]] = []

    def sender(who: int) -> None:
        for number in range(200):
            rig.loop.call_soon(lambda number=number: got.append((who, number)))

    threads = [threading.Thread(target=sender, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.settle()
    for who in range(4):
        assert [number for source, number in got if source == who] == list(range(200))


def test_reader_and_writer(rig):
    left, right = socket.socketpair()
    received = bytearray()
    done = threading.Event()

    def read() -> None:
        received.extend(left.recv(10))
        if len(received) == 25:
            rig.loop.remove_reader(left.fileno())
            done.set()

    def write() -> None:
        left.send(b"ping")
        rig.loop.remove_writer(left.fileno())

    rig.loop.add_reader(left.fileno(), read)
    rig.loop.add_writer(left.fileno(), write)
    assert right.recv(10) == b"ping"
    right.send(bytes(25))
    assert done.wait(PATIENCE)
    right.send(b"more")
    rig.settle()
    assert len(received) == 25
    left.close()
    right.close()
    assert not rig.errors


def test_hangup_reaches_the_reader(rig):
    read_end, write_end = os.pipe()
    done = threading.Event()

    def read() -> None:
        if os.read(read_end, 10) == b"":
            rig.loop.remove_reader(read_end)
            done.set()

    rig.loop.add_reader(read_end, read)
    os.close(write_end)
    assert done.wait(PATIENCE)
    os.close(read_end)


def test_a_regular_file_is_always_ready(rig, tmp_path):
    path = tmp_path / "input"
    path.write_bytes(b"abcdef")
    received = bytearray()
    done = threading.Event()
    with path.open("rb", buffering=0) as file:

        def read() -> None:
            data = file.read(2)
            received.extend(data)
            if not data:
                rig.loop.remove_reader(file.fileno())
                done.set()

        rig.loop.add_reader(file.fileno(), read)
        assert done.wait(PATIENCE)
    assert received == b"abcdef"


def test_a_bad_descriptor_is_refused_and_forgotten(rig):
    with pytest.raises(OSError, match="Bad file descriptor"):
        rig.loop.add_reader(99_999, lambda: None)
    rig.loop.remove_reader(99_999)
    rig.settle()


def test_a_reader_removed_by_another_callback_of_the_same_turn_is_not_called(rig):
    pairs = [socket.socketpair() for _ in range(2)]
    called: list[int] = []

    def read(index: int) -> None:
        called.append(index)
        for left, _ in pairs:
            rig.loop.remove_reader(left.fileno())

    with rig.lock:
        for index, (left, right) in enumerate(pairs):
            rig.loop.add_reader(left.fileno(), lambda index=index: read(index))
            right.send(b"x")
    rig.settle()
    rig.settle()
    assert len(called) == 1
    for left, right in pairs:
        left.close()
        right.close()


def test_close_with_the_machines_lock_held_does_not_deadlock():
    rig = Rig()
    rig.settle()
    with rig.lock:
        rig.loop.call_soon(lambda: None)
        rig.loop.close()


def test_close_from_a_callback_ends_the_thread():
    rig = Rig()
    rig.settle()
    thread = rig.loop._thread
    assert thread is not None
    rig.loop.call_soon(rig.loop.close)
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert not rig.errors


def test_after_close_work_is_dropped_and_descriptors_refused():
    rig = Rig()
    rig.settle()
    rig.loop.close()
    fired: list[int] = []
    rig.loop.call_soon(lambda: fired.append(1))
    rig.clock.call_at(0, lambda: fired.append(2))
    with pytest.raises(VmmError, match="closed"):
        rig.loop.add_reader(0, lambda: None)
    assert not fired
    assert not Rig().loop.running


def test_a_paused_clock_stands_still_and_its_timers_wait(rig):
    fired = threading.Event()
    rig.clock.pause()
    before = rig.clock.now_ns()
    rig.clock.call_at(before + 1, fired.set)
    rig.settle()
    assert rig.clock.now_ns() == before
    assert not fired.is_set()
    rig.clock.resume()
    assert fired.wait(PATIENCE)


def test_while_held_nothing_is_called(rig):
    """What became ready before and meanwhile, calls and timers: all of it comes afterwards, and once."""
    reader, writer = os.pipe()
    heard: list[object] = []
    done = threading.Event()
    rig.loop.add_reader(reader, lambda: heard.append(os.read(reader, 100)))
    rig.settle()
    rig.loop.hold(True)
    os.write(writer, b"x")
    rig.clock.call_at(0, lambda: heard.append("timer"))
    rig.loop.call_soon(lambda: heard.append("call"))
    rig.loop.add_writer(writer, lambda: (rig.loop.remove_writer(writer), heard.append("writable"), done.set()))
    for _ in range(3):
        rig.loop.wake()
        time.sleep(0.01)
    assert heard == []
    rig.loop.hold(False)
    assert done.wait(PATIENCE)
    rig.settle()
    assert sorted(map(str, heard)) == ["b'x'", "call", "timer", "writable"]
    rig.loop.hold(True)
    rig.loop.close()
    os.close(reader)
    os.close(writer)


def test_a_clock_can_be_set_for_a_restored_machine(rig):
    rig.clock.pause()
    rig.clock.resume(10**15)
    assert 10**15 <= rig.clock.now_ns() < 10**15 + 60 * 10**9
    assert abs(rig.clock.wall_ns() - time.time_ns()) < 60 * 10**9


def test_a_forked_child_can_close_its_copy(rig):
    rig.settle()
    pid = os.fork()
    if pid == 0:
        try:
            rig.loop.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    rig.settle()


def test_many_loops_come_and_go():
    threads, fds = threading.active_count(), open_fds()
    for _ in range(50):
        rig = Rig()
        done = threading.Event()
        rig.clock.call_at(0, done.set)
        assert done.wait(PATIENCE)
        rig.loop.close()
    assert (threading.active_count(), open_fds()) == (threads, fds)
