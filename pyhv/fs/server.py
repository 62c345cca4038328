"""A FUSE server for one shared folder: takes a request, does it on the host, writes the reply.

Whatever a request holds, it is answered with an error number or not at all; nothing in it makes `serve` raise.
"""

from __future__ import annotations

import errno
import os

from pyhv._types import TYPE_CHECKING
from pyhv.fs import changes, files, folders, fuse, names, xattrs
from pyhv.fs.attributes import Attributes
from pyhv.fs.fuse import IN_HEADER, INIT_IN, INIT_OUT, OUT_HEADER
from pyhv.fs.handles import Handles
from pyhv.fs.sync import Sync
from pyhv.fs.tree import MAX_NODES, Tree, failure
from pyhv.record import record

if TYPE_CHECKING:
    from pyhv.fs.message import Message, Operation, Reply
    from pyhv.fs.tree import Node

MAX_IO = 1 << 20
"""Bytes in one READ or WRITE."""
MAX_READAHEAD = 1 << 20
MAX_BACKGROUND = 64
WHOLE = 4096
"""Requests up to this size are taken as bytes; of longer ones the head only, unless they are no writes."""
HEAD = IN_HEADER.size + fuse.IO_IN.size
LONGEST = (1 << 16) + (1 << 12)
"""Of requests other than WRITE: the value and the name of an extended attribute."""
NODELESS = (fuse.RELEASE, fuse.RELEASEDIR, fuse.DESTROY)
"""Requests that need no node that is known: a RELEASE may come after the last FORGET, by another queue."""

SILENT = (fuse.FORGET, fuse.BATCH_FORGET, fuse.INTERRUPT)
"""Requests without a reply."""

_IN = IN_HEADER.size
_OUT = OUT_HEADER.size
_PAGE = 4096
_header = IN_HEADER.unpack_from
_reply_header = OUT_HEADER.pack


@record(frozen=True)
class Policy:
    """What the guest may keep: names and attributes for `seconds`; the data of files `always`, `auto` while the file is the
    same, or not at all."""

    seconds: int
    data: str


POLICIES = {
    "auto": Policy(1, "auto"),
    "always": Policy(86_400, "always"),
    "none": Policy(0, "none"),
}
XATTR = ("none", "read", "write")


class Server:
    """Serves the folder `path`, read-only unless `writable`.

    `cache` is one of POLICIES. `xattr`: whether the guest has extended attributes, and may set them. `submounts`: whether
    file systems mounted below are entered. `devices`: whether the guest may make device nodes.
    Raises ConfigError or HostError.
    """

    def __init__(
        self,
        path: str,
        *,
        writable: bool = False,
        cache: str = "auto",
        xattr: str = "read",
        submounts: bool = True,
        devices: bool = False,
        max_nodes: int = MAX_NODES,
    ) -> None:
        self.writable = writable
        self.policy = POLICIES[cache]
        self.devices = devices
        self.privileged = os.geteuid() == 0
        self.tree = Tree(path, submounts=submounts, max_nodes=max_nodes)
        self.handles = Handles(self.tree, quiet=not writable and self.privileged)
        self.attributes = Attributes(self.tree.root.device, self.policy.seconds, self.policy.seconds)
        self.caller = (0, 0)
        """User and group of the request."""
        self.negotiated = 0
        """Flags of INIT in force."""
        self.deferring = False
        """Whether the carrier does what waits for the host's disk."""
        self._active: dict[int, Operation] = {}
        """The operations while there is a session."""
        self._operations: dict[int, Operation] = {
            **names.OPERATIONS,
            **files.OPERATIONS,
            **folders.OPERATIONS,
            **changes.OPERATIONS,
            **xattrs.OPERATIONS,
        }
        if xattr == "none":
            for opcode in xattrs.OPERATIONS:
                del self._operations[opcode]
        elif xattr == "read":
            for opcode in xattrs.WRITES:
                self._operations[opcode] = (_unsupported, 0, 0)
        if not writable:
            for opcode in (*changes.OPERATIONS, *files.WRITES, *xattrs.WRITES):
                self._operations[opcode] = (_read_only, 0, 0)
            for opcode in (fuse.FLUSH, fuse.FSYNC, fuse.FSYNCDIR, fuse.SYNCFS):
                del self._operations[opcode]  # the guest then asks no more
        self._operations[fuse.DESTROY] = (_destroy, 0, 0)

    def serve(self, message: Message) -> int | Sync:
        """Answer a request; how many bytes of the reply there are, 0 for none. Of a carrier that defers: or what to wait
        for, and then to `answer`."""
        size = message.readable_size
        data = message.read() if size <= WHOLE else message.read(0, HEAD)
        if len(data) < _IN:
            return 0
        length, opcode, unique, node_id, uid, gid, _, _, _ = _header(data)
        if opcode in SILENT:
            self._forget(message, opcode, node_id, data)
            return 0
        room = message.writable_size - _OUT
        if room < 0:
            return 0
        error = 0
        reply: Reply
        try:
            operation = self._active.get(opcode)
            if length != size:
                raise failure(errno.EINVAL)
            if operation is None:
                reply = self._other(opcode, data)
            else:
                handler, needed, replied = operation
                if size > WHOLE and opcode != fuse.WRITE:
                    data = self._whole(message)
                if size < needed + _IN or room < replied:
                    raise failure(errno.EINVAL)
                node = self.tree.nodes.get(node_id)
                if node is None:
                    if opcode not in NODELESS:
                        raise failure(errno.ESTALE)
                    node = self.tree.root
                self.caller = (uid, gid)
                reply = handler(self, node, data[_IN:], message)
            if isinstance(reply, int):
                message.write(_reply_header(_OUT + reply, 0, unique))
                return _OUT + reply
            if isinstance(reply, Sync):
                if self.deferring:
                    reply.unique = unique
                    return reply
                reply.begin()
                reply.run()
                reply = b""
            if len(reply) > room:
                raise failure(errno.ERANGE)
        except OSError as problem:
            error, reply = -(problem.errno or errno.EIO), b""
        except (OverflowError, ValueError):  # a number beyond what the host takes, a name with a NUL
            error, reply = -errno.EINVAL, b""
        size = _OUT + len(reply)
        header = _reply_header(size, error, unique)
        if reply and room <= WHOLE:
            views = message.writable_views()
            if len(views) == 2 and len(views[0]) == _OUT:  # as Linux lays out what it waits for
                views[0][:] = header
                views[1][: len(reply)] = reply
                return size
        message.write(header + reply)
        return size

    @staticmethod
    def answer(message: Message, sync: Sync, error: OSError | None) -> int:
        """The reply to a request that was deferred; how many bytes it has."""
        message.write(_reply_header(_OUT, 0 if error is None else -(error.errno or errno.EIO), sync.unique))
        return _OUT

    @staticmethod
    def _whole(message: Message) -> bytes:
        if message.readable_size > LONGEST:
            raise failure(errno.EINVAL)
        return message.read()

    def _other(self, opcode: int, data: bytes) -> bytes:
        """INIT, and what is unknown or comes too early."""
        if opcode == fuse.INIT:
            return self._init(data[_IN:])
        raise failure(errno.ENOSYS if self._active else errno.EIO)

    def _init(self, body: bytes) -> bytes:
        """Begin a session; what the guest had before is forgotten. Raises EPROTO for versions that are not spoken."""
        if len(body) < INIT_IN.size:
            raise failure(errno.EINVAL)
        major, minor, readahead, offered = INIT_IN.unpack_from(body)
        if major > fuse.MAJOR:
            return INIT_OUT.pack(fuse.MAJOR, fuse.MINOR, *(0,) * 9)
        if major < fuse.MAJOR or minor < fuse.MIN_MINOR:
            raise failure(errno.EPROTO)
        if offered & fuse.INIT_EXT and len(body) >= INIT_IN.size + 4:
            offered |= int.from_bytes(body[INIT_IN.size : INIT_IN.size + 4], "little") << 32
        self.reset()
        self._active = self._operations
        flags = self.negotiated = offered & self._wanted()
        return INIT_OUT.pack(
            fuse.MAJOR,
            fuse.MINOR,
            min(readahead, MAX_READAHEAD),
            flags & 0xFFFF_FFFF,
            MAX_BACKGROUND,
            MAX_BACKGROUND * 3 // 4,
            MAX_IO,
            1,
            MAX_IO // _PAGE,
            0,
            flags >> 32,
        )

    def _wanted(self) -> int:
        flags = (
            fuse.ASYNC_READ
            | fuse.BIG_WRITES
            | fuse.DO_READDIRPLUS
            | fuse.READDIRPLUS_AUTO
            | fuse.ASYNC_DIO
            | fuse.PARALLEL_DIROPS
            | fuse.MAX_PAGES
            | fuse.CACHE_SYMLINKS
            | fuse.HANDLE_KILLPRIV_V2
            | fuse.INIT_EXT
        )
        if self.policy.data != "always":
            flags |= fuse.AUTO_INVAL_DATA
        if self.policy.data == "none":
            flags |= fuse.DIRECT_IO_ALLOW_MMAP
        if self.writable:
            flags |= fuse.ATOMIC_O_TRUNC
        elif self.policy.data == "always":
            flags |= fuse.NO_OPEN_SUPPORT | fuse.NO_OPENDIR_SUPPORT
        return flags

    def _forget(self, message: Message, opcode: int, node_id: int, data: bytes) -> None:
        if opcode == fuse.FORGET:
            if len(data) >= _IN + fuse.UINT64.size:
                self.forget(node_id, fuse.UINT64.unpack_from(data, _IN)[0])
        elif opcode == fuse.BATCH_FORGET and message.readable_size <= LONGEST:
            names.batch_forget(self, message.read()[_IN :])

    def forget(self, node_id: int, count: int) -> None:
        """The guest takes back `count` lookups of a node."""
        node = self.tree.forget(node_id, count)
        if node is not None and node.handle is not None:
            self.handles.drop(node)

    def reset(self) -> None:
        """Forget the guest: its handles and nodes."""
        self._active = {}
        self.negotiated = 0
        self.handles.clear()
        self.tree.clear()

    def close(self) -> None:
        """Give back what is open on the host; idempotent."""
        self.reset()
        self.tree.close()


def _read_only(server: Server, node: Node, body: bytes, message: Message) -> Reply:
    raise failure(errno.EROFS)


def _unsupported(server: Server, node: Node, body: bytes, message: Message) -> Reply:
    raise failure(errno.EOPNOTSUPP)


def _destroy(server: Server, node: Node, body: bytes, message: Message) -> Reply:
    server.reset()
    return b""
