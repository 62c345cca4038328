"""The event that needs no threading: set is never lost, and stays until it is cleared."""

import threading

from pyhv.locks import Wakeup


def test_what_is_set_before_is_not_waited_for() -> None:
    wakeup = Wakeup()
    wakeup.set()
    wakeup.set()
    wakeup.wait()
    wakeup.wait()


def test_a_thread_waits_until_another_sets_it() -> None:
    wakeup, done = Wakeup(), threading.Event()
    thread = threading.Thread(target=lambda: (wakeup.wait(), done.set()), daemon=True)
    thread.start()
    assert not done.wait(0.05)
    wakeup.set()
    assert done.wait(60)
    thread.join()


def test_cleared_it_must_be_set_again() -> None:
    wakeup, done = Wakeup(), threading.Event()
    wakeup.clear()
    wakeup.set()
    wakeup.clear()
    thread = threading.Thread(target=lambda: (wakeup.wait(), done.set()), daemon=True)
    thread.start()
    assert not done.wait(0.05)
    wakeup.set()
    assert done.wait(60)
    thread.join()


def test_no_set_among_many_is_lost() -> None:
    wakeup, turns = Wakeup(), []

    def worker() -> None:
        for _ in range(500):
            wakeup.wait()
            wakeup.clear()
            turns.append(1)
            reply.set()

    reply = Wakeup()
    thread = threading.Thread(target=worker, daemon=True)
    thread.start()
    for _ in range(500):
        wakeup.set()
        reply.wait()
        reply.clear()
    thread.join(60)
    assert len(turns) == 500
