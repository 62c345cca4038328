"""Unix sockets that listen: made where a process that is gone left its own, and removed by whoever made them."""

from __future__ import annotations

import os
import socket
import stat

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    Identity = tuple[int, int]


def listen(path: str, backlog: int) -> tuple[socket.socket, Identity]:
    """A socket that listens at `path` and does not block, and which file it is. Raises OSError.

    What is there already stays, unless it is a socket at which nobody listens any more.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _remove_stale(path)
        listener.bind(path)
        listener.listen(backlog)
        return listener, _identity(path)
    except OSError:
        listener.close()
        raise


def remove(path: str, identity: Identity) -> None:
    """Remove the socket at `path` if it still is this one."""
    try:
        if _identity(path) == identity:
            os.unlink(path)
    except OSError:
        return


def _identity(path: str) -> Identity:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            return
