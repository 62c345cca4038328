"""Files and directories that the guest has open."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from stat import S_IFDIR, S_IFREG

from pyhv._types import TYPE_CHECKING
from pyhv.fs import descriptors
from pyhv.fs.tree import PROC, failure

if TYPE_CHECKING:
    from pyhv.fs.tree import Node, Tree

KEPT = 256
"""Handles that stand for reads without an OPEN."""

_ALWAYS = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class Handle:
    """An open file, or an open directory with records of it that were read and not yet given.

    `fd` is -1 for a directory on which something is mounted that is not entered. `cookie` is the place after the entry that
    was given last; what comes next are the `records` of the host from `position` on.
    """

    __slots__ = ("cookie", "fd", "id", "node", "position", "records")

    def __init__(self, number: int, node: Node, fd: int) -> None:
        self.id = number
        self.node = node
        self.fd = fd
        self.records = b""
        self.position = 0
        self.cookie = 0


class Handles:
    """All handles of one server, by number; 0 is none. `quiet`: reading shall not change when a file was last read."""

    def __init__(self, tree: Tree, *, quiet: bool) -> None:
        self._tree = tree
        self._quiet = quiet
        self._next = 1
        self.open: dict[int, Handle] = {}
        self._kept: OrderedDict[Node, Handle] = OrderedDict()

    def get(self, number: int) -> Handle:
        """The handle. Raises EBADF."""
        handle = self.open.get(number)
        if handle is None:
            raise failure(errno.EBADF)
        return handle

    def reserve(self) -> None:
        """Raises EMFILE when the guest has as many files open as it may: a third of the descriptors."""
        if len(self.open) + len(self._kept) >= descriptors.limit() // 3:
            if not self._kept:
                raise failure(errno.EMFILE)
            self.drop(next(iter(self._kept)))

    def add(self, node: Node, fd: int) -> Handle:
        """A handle for a descriptor, which belongs to it from now on."""
        handle = Handle(self._next, node, fd)
        self._next += 1
        self.open[handle.id] = handle
        self._opened(handle)
        return handle

    def open_node(self, node: Node, flags: int) -> Handle:
        """Open a file or directory that the guest knows."""
        return self.add(node, self.descriptor(node, flags))

    def kept(self, node: Node) -> Handle:
        """The handle by which a node is read that was not opened."""
        handle = node.handle
        if handle is None:
            handle = node.handle = Handle(0, node, self.descriptor(node, os.O_RDONLY))
            self._kept[node] = handle
            self._opened(handle)
            if len(self._kept) > KEPT:
                self.drop(next(iter(self._kept)))
        return handle

    def descriptor(self, node: Node, flags: int) -> int:
        """A new descriptor of a regular file or directory; -1 for a directory that is not entered."""
        if node.kind == S_IFDIR:
            flags |= os.O_DIRECTORY
        elif node.kind != S_IFREG:
            raise failure(errno.ENXIO)
        self.reserve()
        try:
            pinned = self._tree.pin(node)
        except OSError as error:
            if error.errno == errno.EXDEV and node.kind == S_IFDIR:
                return -1
            raise
        flags |= _ALWAYS
        return self._tree.retried(lambda: self._reopened(PROC % pinned, flags), pinned)

    def _reopened(self, path: bytes, flags: int) -> int:
        if self._quiet:
            try:
                return os.open(path, flags | os.O_NOATIME)
            except PermissionError:  # of another owner's file
                pass
        return os.open(path, flags)

    def close(self, number: int) -> None:
        """Release a handle. Raises EBADF."""
        handle = self.get(number)
        del self.open[number]
        self._closed(handle)

    def drop(self, node: Node) -> None:
        """Close the handle by which a node is read without being opened, if there is one."""
        handle = self._kept.pop(node, None)
        if handle is not None:
            node.handle = None
            self._closed(handle)

    def clear(self) -> None:
        """Close all."""
        for number in list(self.open):
            self.close(number)
        for node in list(self._kept):
            self.drop(node)

    def _opened(self, handle: Handle) -> None:
        if handle.fd >= 0:
            self._tree.opened(handle.node)
            self._tree.count(handle.fd)

    def _closed(self, handle: Handle) -> None:
        if handle.fd >= 0:
            os.close(handle.fd)
            handle.fd = -1
            self._tree.held -= 1
            self._tree.closed(handle.node)
