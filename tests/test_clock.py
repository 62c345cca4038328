"""Timers in order, whatever is cancelled."""

from hypothesis import given
from hypothesis import strategies as st

from pyhv.clock import ManualClock, TimerQueue


def test_timers_fire_in_order_each_at_its_own_time():
    clock = ManualClock(wall_start_ns=1000)
    seen: list[tuple[str, int]] = []
    for name, when in (("b", 20), ("a", 10), ("c", 20), ("late", 31)):
        clock.call_at(when, lambda name=name: seen.append((name, clock.now_ns())))
    clock.advance(30)
    assert seen == [("a", 10), ("b", 20), ("c", 20)]
    assert (clock.now_ns(), clock.wall_ns(), clock.next_deadline()) == (30, 1030, 31)


def test_a_timer_rearmed_for_ever_does_not_fill_the_queue():
    queue = TimerQueue()
    keep = queue.add(5, lambda: None)
    for _ in range(10_000):
        queue.add(10**15, lambda: None).cancel()
    assert len(queue) <= 128
    assert queue.next_deadline() == 5
    assert keep.active


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=300))
def test_what_is_not_cancelled_fires_once_in_order(timers):
    queue = TimerQueue()
    fired: list[int] = []
    for index, (deadline, cancelled) in enumerate(timers):
        timer = queue.add(deadline, lambda index=index: fired.append(index))
        if cancelled:
            timer.cancel()
    while (callback := queue.pop_due(50)) is not None:
        callback()
    kept = [index for index, (_, cancelled) in enumerate(timers) if not cancelled]
    assert fired == sorted(kept, key=lambda index: (timers[index][0], index))
    assert queue.next_deadline() is None
