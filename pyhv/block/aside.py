"""Work that may wait for the host's storage, away from the machine's lock where there are threads."""

from __future__ import annotations

from pyhv._builtin import partial
from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from pyhv.events import HostEvents


class Aside:
    """One piece of work at a time.

    On a machine whose devices live on the event loop (`pyhv.loop.EventLoop`) it is done in a thread of its own; on any other,
    whose time must not depend on the host's, at once.
    """

    def __init__(self, events: HostEvents) -> None:
        from pyhv.loop import EventLoop

        self._events = events
        self.threaded = isinstance(events, EventLoop)
        self._ended: Event | None = None

    def run(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        """Do the work, then call `done` with the OSError that it raised, or None; with the machine's lock held.

        Any other exception is one of the machine's.
        """
        if not self.threaded:
            done(_outcome(work))
            return
        from threading import Event, Thread

        ended = self._ended = Event()

        def run() -> None:
            then: Callable[[], None]
            try:
                error = _outcome(work)
            except BaseException as bug:
                then = partial(_fail, bug)
            else:
                then = partial(done, error)
            ended.set()
            self._events.call_soon(then)

        try:
            Thread(target=run, name="pyhv-storage", daemon=True).start()
        except RuntimeError:  # the host has no more threads
            run()

    def wait(self) -> None:
        """Return when no work is being done; its `done` may be still to come."""
        if self._ended is not None:
            self._ended.wait()


def _fail(bug: BaseException) -> None:
    raise bug


def _outcome(work: Callable[[], None]) -> OSError | None:
    try:
        work()
    except OSError as error:
        return error
    return None
