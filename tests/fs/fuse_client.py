"""A guest's side of the FUSE protocol: requests made by hand, sent to a server directly or through any other carrier."""

import errno
import os
from collections import namedtuple
from struct import pack, unpack, unpack_from

from pyhv.fs import fuse

ROOT = fuse.ROOT_ID
MAX = 1 << 20
OFFERED = (1 << 30) - 1 | fuse.DIRECT_IO_ALLOW_MMAP | fuse.INIT_EXT

Attr = namedtuple(
    "Attr",
    "ino size blocks atime mtime ctime atimensec mtimensec ctimensec mode nlink uid gid rdev blksize flags",
)
Entry = namedtuple("Entry", "node generation entry_valid attr_valid attr")
Dirent = namedtuple("Dirent", "ino off type name entry")
Init = namedtuple(
    "Init", "major minor readahead flags background congestion max_write time_gran max_pages map_alignment flags2"
)


class FuseError(OSError):
    """The server's error reply."""


class BytesMessage:
    """A message in bytes of this process; `shape` cuts the reply's room into views of these sizes."""

    def __init__(self, request, room, shape=None):
        self.request = request
        self.reply = bytearray(room)
        self.readable_size = len(request)
        self.writable_size = room
        self.shape = shape or room or 1

    def read(self, offset=0, size=None):
        return self.request[offset:] if size is None else self.request[offset : offset + size]

    def write(self, data, offset=0):
        assert offset + len(data) <= len(self.reply), "a reply beyond its room"
        self.reply[offset : offset + len(data)] = data

    def _views(self, data, offset, size):
        end = len(data) if size is None else min(offset + size, len(data))
        view = memoryview(data)
        return [view[at : min(at + self.shape, end)] for at in range(offset, end, self.shape)]

    def readable_views(self, offset=0, size=None):
        return self._views(self.request, offset, size)

    def writable_views(self, offset=0, size=None):
        return self._views(self.reply, offset, size)


def direct(server, shape=None):
    """The carrier that has no queue between."""

    def carry(request, room):
        message = BytesMessage(request, room, shape)
        return bytes(message.reply[: server.serve(message)])

    return carry


def request(opcode, node, body=b"", *, unique=1, uid=0, gid=0):
    """A request's bytes."""
    return fuse.IN_HEADER.pack(40 + len(body), opcode, unique, node, uid, gid, 0, 0, 0) + body


class Client:
    """Calls that give what the reply says, or raise FuseError."""

    def __init__(self, carry, *, uid=0, gid=0, init=True, offered=OFFERED):
        self.carry = carry
        self.uid = uid
        self.gid = gid
        self.unique = 0
        if init:
            self.init(offered=offered)

    def send(self, opcode, node, body=b"", room=MAX):
        """The bare reply, header included."""
        self.unique += 2
        return self.carry(request(opcode, node, body, unique=self.unique, uid=self.uid, gid=self.gid), 16 + room)

    def call(self, opcode, node, body=b"", room=4096):
        reply = self.send(opcode, node, body, room)
        length, error, unique = unpack_from("<IiQ", reply)
        assert length == len(reply) and unique == self.unique
        if error:
            assert -4096 < error < 0 and length == 16
            raise FuseError(-error, os.strerror(-error))
        return reply[16:]

    def silent(self, opcode, node, body=b""):
        assert self.send(opcode, node, body, 0) == b""

    def init(self, *, major=7, minor=38, offered=OFFERED, readahead=1 << 17):
        body = pack("<5I44x", major, minor, readahead, offered & 0xFFFFFFFF, offered >> 32)
        return Init(*unpack("<4IHHIIHHI28x", self.call(fuse.INIT, 0, body, 64)))

    def lookup(self, name, node=ROOT):
        return entry(self.call(fuse.LOOKUP, node, encode(name) + b"\0", 128))

    def walk(self, path):
        """The node of a path, each component looked up."""
        found = ROOT
        for name in path.split("/"):
            found = self.lookup(name, found).node
        return found

    def forget(self, node, count=1):
        self.silent(fuse.FORGET, node, pack("<Q", count))

    def batch_forget(self, *pairs):
        self.silent(fuse.BATCH_FORGET, 0, pack("<II", len(pairs), 0) + b"".join(pack("<QQ", *pair) for pair in pairs))

    def getattr(self, node, handle=None):
        body = pack("<IIQ", 0 if handle is None else fuse.GETATTR_FH, 0, handle or 0)
        return attr(self.call(fuse.GETATTR, node, body, 104))

    def setattr(self, node, **fields):
        valid, values = 0, dict.fromkeys(("fh", "size", "atime", "mtime", "atimensec", "mtimensec", "mode", "uid", "gid"), 0)
        bits = {"mode": 0, "uid": 1, "gid": 2, "size": 3, "atime": 4, "mtime": 5, "fh": 6}
        for name, value in fields.items():
            if name == "atime_now":
                valid |= fuse.FATTR_ATIME | fuse.FATTR_ATIME_NOW
            elif name == "mtime_now":
                valid |= fuse.FATTR_MTIME | fuse.FATTR_MTIME_NOW
            elif name == "drop":
                valid |= fuse.FATTR_KILL_SUIDGID
            else:
                values[name] = value
                valid |= 1 << bits[name] if name in bits else 0
        body = fuse.SETATTR_IN.pack(
            valid, 0, values["fh"], values["size"], 0, values["atime"], values["mtime"], 0,
            values["atimensec"], values["mtimensec"], 0, values["mode"], 0, values["uid"], values["gid"], 0,
        )  # fmt: skip
        return attr(self.call(fuse.SETATTR, node, body, 104))

    def readlink(self, node):
        return self.call(fuse.READLINK, node)

    def symlink(self, name, target, node=ROOT):
        return entry(self.call(fuse.SYMLINK, node, encode(name) + b"\0" + encode(target) + b"\0", 128))

    def mknod(self, name, mode, node=ROOT, rdev=0):
        return entry(self.call(fuse.MKNOD, node, pack("<4I", mode, rdev, 0, 0) + encode(name) + b"\0", 128))

    def mkdir(self, name, mode=0o755, node=ROOT):
        return entry(self.call(fuse.MKDIR, node, pack("<II", mode, 0) + encode(name) + b"\0", 128))

    def unlink(self, name, node=ROOT):
        self.call(fuse.UNLINK, node, encode(name) + b"\0", 0)

    def rmdir(self, name, node=ROOT):
        self.call(fuse.RMDIR, node, encode(name) + b"\0", 0)

    def rename(self, name, new, node=ROOT, new_node=ROOT, flags=None):
        names = encode(name) + b"\0" + encode(new) + b"\0"
        if flags is None:
            self.call(fuse.RENAME, node, pack("<Q", new_node) + names, 0)
        else:
            self.call(fuse.RENAME2, node, pack("<QII", new_node, flags, 0) + names, 0)

    def link(self, old, name, node=ROOT):
        return entry(self.call(fuse.LINK, node, pack("<Q", old) + encode(name) + b"\0", 128))

    def open(self, node, flags=os.O_RDONLY, extra=0):
        """The handle; its flags are in `opened`."""
        handle, self.opened, _ = unpack("<QII", self.call(fuse.OPEN, node, pack("<II", flags, extra), 16))
        return handle

    def create(self, name, flags=os.O_RDWR, mode=0o644, node=ROOT):
        reply = self.call(fuse.CREATE, node, pack("<4I", flags, mode, 0, 0) + encode(name) + b"\0", 144)
        handle, self.opened, _ = unpack("<QII", reply[128:])
        return entry(reply[:128]), handle

    def read(self, node, handle, size, offset=0):
        return self.call(fuse.READ, node, pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0), size)

    def write(self, node, handle, data, offset=0, *, flags=0, extra=0):
        body = pack("<QQIIQII", handle, offset, len(data), extra, 0, flags, 0) + data
        return unpack("<II", self.call(fuse.WRITE, node, body, 8))[0]

    def release(self, node, handle):
        self.call(fuse.RELEASE, node, pack("<QIIQ", handle, 0, 0, 0), 0)

    def flush(self, node, handle):
        self.call(fuse.FLUSH, node, pack("<QIIQ", handle, 0, 0, 0), 0)

    def fsync(self, node, handle, flags=0, opcode=fuse.FSYNC):
        self.call(opcode, node, pack("<QII", handle, flags, 0), 0)

    def opendir(self, node=ROOT):
        handle, self.opened, _ = unpack("<QII", self.call(fuse.OPENDIR, node, pack("<II", 0, 0), 16))
        return handle

    def releasedir(self, node, handle):
        self.call(fuse.RELEASEDIR, node, pack("<QIIQ", handle, 0, 0, 0), 0)

    def readdir(self, node, handle, offset=0, size=4096, *, plus=False):
        """The entries of one reply."""
        body = pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)
        data = self.call(fuse.READDIRPLUS if plus else fuse.READDIR, node, body, size)
        found, at = [], 0
        while at < len(data):
            first = None
            if plus:
                first = entry(data[at : at + 128])
                at += 128
            ino, off, length, kind = unpack_from("<QQII", data, at)
            name = data[at + 24 : at + 24 + length]
            found.append(Dirent(ino, off, kind, name, first))
            at += 24 + (length + 7 & ~7)
        assert at == len(data)
        return found

    def list(self, node=ROOT, size=4096, *, plus=False):
        """All entries but "." and ".."."""
        handle, offset, found = self.opendir(node), 0, []
        while more := self.readdir(node, handle, offset, size, plus=plus):
            found += more
            offset = more[-1].off
        self.releasedir(node, handle)
        return [one for one in found if one.name not in (b".", b"..")]

    def statfs(self, node=ROOT):
        return unpack("<5Q4I24x", self.call(fuse.STATFS, node, b"", 80))

    def access(self, node, mask):
        self.call(fuse.ACCESS, node, pack("<II", mask, 0), 0)

    def getxattr(self, node, name, size=1 << 16):
        return self.call(fuse.GETXATTR, node, pack("<II", size, 0) + name + b"\0", max(size, 8))

    def listxattr(self, node, size=1 << 16):
        return self.call(fuse.LISTXATTR, node, pack("<II", size, 0), max(size, 8))

    def setxattr(self, node, name, value, flags=0):
        self.call(fuse.SETXATTR, node, pack("<II", len(value), flags) + name + b"\0" + value, 0)

    def removexattr(self, node, name):
        self.call(fuse.REMOVEXATTR, node, name + b"\0", 0)

    def lseek(self, node, handle, offset, whence):
        return unpack("<Q", self.call(fuse.LSEEK, node, pack("<QQII", handle, offset, whence, 0), 8))[0]

    def fallocate(self, node, handle, offset, length, mode=0):
        self.call(fuse.FALLOCATE, node, pack("<QQQII", handle, offset, length, mode, 0), 0)

    def copy(self, source, target, length, at=0, to=0, flags=0):
        """`source` and `target` are (node, handle)."""
        body = pack("<7Q", source[1], at, target[0], target[1], to, length, flags)
        return unpack("<II", self.call(fuse.COPY_FILE_RANGE, source[0], body, 8))[0]

    def destroy(self):
        self.call(fuse.DESTROY, 0, b"", 0)


def encode(name):
    return name if isinstance(name, bytes) else os.fsencode(name)


def entry(data):
    node, generation, entry_valid, attr_valid = unpack_from("<4Q", data)
    return Entry(node, generation, entry_valid, attr_valid, Attr(*unpack("<6Q10I", data[40:])))


def attr(data):
    return Attr(*unpack("<6Q10I", data[16:]))


def error_of(call, *arguments, **named):
    """The name of the error that a call is answered with."""
    try:
        call(*arguments, **named)
    except FuseError as error:
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]
    raise AssertionError("no error")
