"""The files of a shared folder that the guest knows, and the way to each that never leaves the folder.

A node is what the FUSE protocol calls an inode: it has a number that is never used again, and lives from the first LOOKUP
to the last FORGET. Where it is in use it holds a descriptor opened with O_PATH, which names one file whatever happens to
its path. Otherwise it holds its parent and its name there, and is opened again, one component, no link followed, when it is
needed; it must then be the same file as before, else it is stale. Names come from the guest one component at a time,
without slash, "." and "..". So no path of the guest's, and no link, is ever resolved by the host.
"""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from stat import S_IFDIR, S_IFLNK, S_IFMT

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.fs import calls, descriptors
from pyhv.fs.fuse import ROOT_ID
from pyhv.fs.mounts import PSEUDO

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.fs.handles import Handle

MAX_NODES = 1 << 20
"""What a guest may know at once; some 300 bytes each."""
MAX_DEPTH = 4096
"""Of a path that is opened anew."""
PROC = b"/proc/self/fd/%d"
"""By this path a descriptor's file is reached again, and never another."""

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


def failure(number: int) -> OSError:
    """An error as the host's calls raise it."""
    return OSError(number, os.strerror(number))


class Node:
    """A file that the guest knows.

    `device`, `inode` and `kind` (S_IFMT) identify it. `lookups` is how often the guest must forget it. `opens` counts the
    handles that need its descriptor, `handle` is the one that reads without an OPEN go by. `stamp` is (modification, size)
    when it was last opened.
    """

    __slots__ = ("device", "fd", "handle", "id", "inode", "kind", "lookups", "name", "opens", "parent", "stamp")

    def __init__(self, number: int, parent: Node | None, name: bytes, device: int, inode: int, kind: int) -> None:
        self.id = number
        self.parent = parent
        self.name = name
        self.device = device
        self.inode = inode
        self.kind = kind
        self.fd = -1
        self.lookups = 0
        self.opens = 0
        self.handle: Handle | None = None
        self.stamp: tuple[int, int] | None = None

    def is_same(self, st: os.stat_result) -> bool:
        """Whether these are the attributes of this file."""
        return st.st_ino == self.inode and st.st_dev == self.device and S_IFMT(st.st_mode) == self.kind


class Tree:
    """The nodes of one shared folder. Host errors pass through as OSError; a file that is no longer there is ESTALE.

    `submounts`: whether to go on in file systems that are mounted below; the kernel's own (proc, sysfs, ...) are never
    entered, their files may block and tell of the host. What is not entered is an empty directory.
    Raises ConfigError when `path` is no directory that can be shared.
    """

    def __init__(self, path: str, *, submounts: bool = True, max_nodes: int = MAX_NODES) -> None:
        self.submounts = submounts
        self.max_nodes = max_nodes
        self.held = 0
        """Descriptors in use, handles included."""
        self.root = self._open_root(path)
        self.nodes: dict[int, Node] = {ROOT_ID: self.root}
        self._next_id = ROOT_ID + 1
        self._identities: dict[tuple[int, int], Node] = {}
        self._pinned: OrderedDict[Node, None] = OrderedDict()
        self._served = {self.root.device: True}
        self.mounts: dict[int, Node] = {}
        """A directory on each further device that was entered."""
        descriptors.join(self)

    def _open_root(self, path: str) -> Node:
        try:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"share: path: {path!r} cannot be shared: {error.strerror}") from None
        try:
            if calls.filesystem_type(fd) in PSEUDO:
                raise ConfigError(f"share: path: {path!r} is in a file system of the kernel's own, which is not shared")
            if not os.path.isdir(PROC % fd):
                raise CapabilityMissing("shared folders need /proc")
            if not os.access(PROC % fd, os.X_OK, effective_ids=True):
                raise ConfigError(f"share: path: {path!r} cannot be shared: this process may not look into it")
            if not self.submounts:
                self._probe_open_here(fd)
        except BaseException:
            os.close(fd)
            raise
        st = os.fstat(fd)
        root = Node(ROOT_ID, None, b"", st.st_dev, st.st_ino, S_IFDIR)
        root.fd = fd
        return root

    @staticmethod
    def _probe_open_here(fd: int) -> None:
        try:
            os.close(calls.open_here(fd, b".", 0))
        except OSError as error:
            raise CapabilityMissing(f"submounts=no needs the system call openat2: {error.strerror}") from None

    def lookup(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result]:
        """The entry of a directory, looked up once more, and its attributes."""
        fd = parent.fd
        if fd < 0:
            fd = self.pin(parent)
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        return self.adopt(parent, name, st), st

    def adopt(self, parent: Node, name: bytes, st: os.stat_result) -> Node:
        """The node of the file that was found under this name, looked up once more."""
        node = self.known(st)
        if node is None:
            node = self._new(parent, name, st)
        else:
            node.parent = parent
            node.name = name
        node.lookups += 1
        return node

    def adopt_opened(self, parent: Node, name: bytes, fd: int, st: os.stat_result) -> Node:
        """The same, for a file that is open by `fd` (O_PATH), which belongs to the tree from now on."""
        try:
            node = self.adopt(parent, name, st)
        except OSError:
            os.close(fd)
            raise
        if node.fd < 0:
            self._keep(node, fd)
        else:
            os.close(fd)
        return node

    def known(self, st: os.stat_result) -> Node | None:
        """The node of a file, if the guest has one."""
        node = self._identities.get((st.st_dev, st.st_ino))
        return node if node is not None and node.kind == S_IFMT(st.st_mode) else None

    def reserve(self) -> None:
        """Raises ENFILE when the guest knows as many files as it may."""
        if len(self.nodes) >= self.max_nodes:
            raise failure(errno.ENFILE)

    def _new(self, parent: Node, name: bytes, st: os.stat_result) -> Node:
        self.reserve()
        node = Node(self._next_id, parent, name, st.st_dev, st.st_ino, S_IFMT(st.st_mode))
        self._next_id += 1
        self.nodes[node.id] = node
        self._identities[st.st_dev, st.st_ino] = node
        return node

    def moved(self, st: os.stat_result, parent: Node, name: bytes) -> None:
        """This file has got another name."""
        node = self.known(st)
        if node is not None:
            node.parent = parent
            node.name = name

    def removed(self, st: os.stat_result) -> None:
        """A name of this file was removed: with the last one its identity becomes free for other files."""
        if st.st_nlink <= 1 or S_IFMT(st.st_mode) == S_IFDIR:
            self._identities.pop((st.st_dev, st.st_ino), None)

    def forget(self, number: int, count: int) -> Node | None:
        """Take back lookups. The node, if it is gone with them: it has no descriptor any more unless it is open."""
        node = self.nodes.get(number)
        if node is None or node is self.root:
            return None
        node.lookups -= count
        if node.lookups > 0:
            return None
        del self.nodes[number]
        identity = (node.device, node.inode)
        if self._identities.get(identity) is node:
            del self._identities[identity]
        if node.fd >= 0 and not node.opens:
            self._unpin(node)
        return node

    def stat(self, node: Node) -> os.stat_result:
        """A node's attributes now."""
        if node.fd >= 0:
            return os.fstat(node.fd)
        parent = node.parent
        assert parent is not None
        try:
            st = os.stat(node.name, dir_fd=parent.fd if parent.fd >= 0 else self.pin(parent), follow_symlinks=False)
        except FileNotFoundError:
            raise failure(errno.ESTALE) from None
        if not node.is_same(st):
            raise failure(errno.ESTALE)
        return st

    def readlink(self, node: Node) -> bytes:
        """What a symbolic link says."""
        if node.kind != S_IFLNK:
            raise failure(errno.EINVAL)
        if node.fd >= 0:
            return os.readlink(b"", dir_fd=node.fd)
        parent = node.parent
        assert parent is not None
        try:
            return os.readlink(node.name, dir_fd=parent.fd if parent.fd >= 0 else self.pin(parent))
        except FileNotFoundError:
            raise failure(errno.ESTALE) from None

    def pin(self, node: Node) -> int:
        """A node's O_PATH descriptor, valid until the next `pin`. EXDEV for what is mounted and not entered."""
        if node.fd >= 0:
            return node.fd
        missing = [node]
        parent = node.parent
        assert parent is not None
        while parent.fd < 0:
            missing.append(parent)
            if len(missing) > MAX_DEPTH:
                raise failure(errno.ESTALE)
            parent = parent.parent
            assert parent is not None
        fd = parent.fd
        while missing:
            fd = self._open_in(fd, missing.pop())
        return fd

    def pin_both(self, first: Node, second: Node) -> tuple[int, int]:
        """The descriptors of two nodes, valid until the next `pin`."""
        self.pin(first)
        self.opened(first)
        try:
            return first.fd, self.pin(second)
        finally:
            self.closed(first)

    def path(self, node: Node) -> bytes:
        """A path that reaches exactly this node until the next `pin`, for calls that know no descriptors."""
        return PROC % self.pin(node)

    def _open_in(self, directory: int, node: Node) -> int:
        kind = os.O_DIRECTORY if node.kind == S_IFDIR else 0
        try:
            fd = self.retried(lambda: self._open(directory, node.name, kind), directory)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise failure(errno.ESTALE) from None
            raise
        try:
            if not node.is_same(os.fstat(fd)):
                raise failure(errno.ESTALE)
            if not self._is_served(node, fd):
                raise failure(errno.EXDEV)
        except OSError:
            os.close(fd)
            raise
        self._keep(node, fd)
        return fd

    def _open(self, directory: int, name: bytes, flags: int) -> int:
        if self.submounts:
            return os.open(name, _PATH | flags, dir_fd=directory)
        return calls.open_here(directory, name, flags)

    def _is_served(self, node: Node, fd: int) -> bool:
        served = self._served.get(node.device)
        if served is None:
            served = self._served[node.device] = calls.filesystem_type(fd) not in PSEUDO
        if served and node.kind == S_IFDIR and node.device != self.root.device:
            self.mounts.setdefault(node.device, node)
        return served

    def open_new(self, directory: int, name: bytes) -> int:
        """An O_PATH descriptor, the caller's, of an entry that the caller has just made."""
        return self.retried(lambda: self._open(directory, name, 0), directory)

    def retried(self, opening: Callable[[], int], needed: int) -> int:
        """A new descriptor; where the process or the host has none left, others are given back first, but not `needed`."""
        try:
            return opening()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._evict(len(self._pinned) // 2 + 1, needed):
                raise
        return opening()

    def _keep(self, node: Node, fd: int) -> None:
        node.fd = fd
        if not node.opens:
            self._pinned[node] = None
        self.count(fd)

    def count(self, fd: int) -> None:
        """There is one descriptor more, this one; another is given back for it where the limit is passed."""
        self.held += 1
        if self.held > descriptors.limit():
            self._evict(1, fd)

    def _evict(self, count: int, needed: int) -> int:
        """Close descriptors of nodes, the longest pinned first, but not `needed`; how many it were."""
        closed = 0
        for _ in range(min(count, len(self._pinned))):
            node = next(iter(self._pinned))
            if node.fd == needed:
                self._pinned.move_to_end(node)
            else:
                self._unpin(node)
                closed += 1
        return closed

    def _unpin(self, node: Node) -> None:
        self._pinned.pop(node, None)
        os.close(node.fd)
        node.fd = -1
        self.held -= 1

    def opened(self, node: Node) -> None:
        """A handle stands on this node: its descriptor stays."""
        node.opens += 1
        self._pinned.pop(node, None)

    def closed(self, node: Node) -> None:
        """One handle less."""
        node.opens -= 1
        if node.opens or node is self.root or node.fd < 0:
            return
        if node.lookups > 0:
            self._pinned[node] = None
        else:
            self._unpin(node)

    def clear(self) -> None:
        """Forget all nodes but the root; their handles must be closed."""
        for node in list(self._pinned):
            self._unpin(node)
        self.nodes = {ROOT_ID: self.root}
        self._identities.clear()
        self.mounts.clear()

    def close(self) -> None:
        """Give back everything; idempotent."""
        if self.root.fd >= 0:
            self.clear()
            os.close(self.root.fd)
            self.root.fd = -1
            descriptors.leave(self)
