"""The FUSE protocol: numbers and layouts of linux/fuse.h, version 7.38. Everything is little-endian."""

from __future__ import annotations

from struct import Struct

MAJOR = 7
MINOR = 38
MIN_MINOR = 31
"""The oldest version that is spoken: the first with virtio-fs."""

ROOT_ID = 1

# enum fuse_opcode
LOOKUP = 1
FORGET = 2
GETATTR = 3
SETATTR = 4
READLINK = 5
SYMLINK = 6
MKNOD = 8
MKDIR = 9
UNLINK = 10
RMDIR = 11
RENAME = 12
LINK = 13
OPEN = 14
READ = 15
WRITE = 16
STATFS = 17
RELEASE = 18
FSYNC = 20
SETXATTR = 21
GETXATTR = 22
LISTXATTR = 23
REMOVEXATTR = 24
FLUSH = 25
INIT = 26
OPENDIR = 27
READDIR = 28
RELEASEDIR = 29
FSYNCDIR = 30
ACCESS = 34
CREATE = 35
INTERRUPT = 36
DESTROY = 38
BATCH_FORGET = 42
FALLOCATE = 43
READDIRPLUS = 44
RENAME2 = 45
LSEEK = 46
COPY_FILE_RANGE = 47
SYNCFS = 50

# Flags of INIT
ASYNC_READ = 1 << 0
ATOMIC_O_TRUNC = 1 << 3
BIG_WRITES = 1 << 5
AUTO_INVAL_DATA = 1 << 12
DO_READDIRPLUS = 1 << 13
READDIRPLUS_AUTO = 1 << 14
ASYNC_DIO = 1 << 15
NO_OPEN_SUPPORT = 1 << 17
PARALLEL_DIROPS = 1 << 18
MAX_PAGES = 1 << 22
CACHE_SYMLINKS = 1 << 23
NO_OPENDIR_SUPPORT = 1 << 24
HANDLE_KILLPRIV_V2 = 1 << 28
INIT_EXT = 1 << 30
DIRECT_IO_ALLOW_MMAP = 1 << 36
"""7.39; flags from bit 32 on travel in flags2."""

# Valid fields of SETATTR
FATTR_MODE = 1 << 0
FATTR_UID = 1 << 1
FATTR_GID = 1 << 2
FATTR_SIZE = 1 << 3
FATTR_ATIME = 1 << 4
FATTR_MTIME = 1 << 5
FATTR_FH = 1 << 6
FATTR_ATIME_NOW = 1 << 7
FATTR_MTIME_NOW = 1 << 8
FATTR_KILL_SUIDGID = 1 << 11

# Flags of other requests and replies
FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
FOPEN_CACHE_DIR = 1 << 3
GETATTR_FH = 1 << 0
WRITE_KILL_SUIDGID = 1 << 2
OPEN_KILL_SUIDGID = 1 << 0
FSYNC_FDATASYNC = 1 << 0

# Layouts, named as the structures are
IN_HEADER = Struct("<IIQQIIIHH")
"""len, opcode, unique, nodeid, uid, gid, pid, total_extlen, padding."""
OUT_HEADER = Struct("<IiQ")
"""len, error, unique."""
ENTRY_OUT = Struct("<4Q2I6Q10I")
"""nodeid, generation, entry_valid, attr_valid, entry_valid_nsec, attr_valid_nsec, then an attr."""
ATTR_OUT = Struct("<QII6Q10I")
"""attr_valid, attr_valid_nsec, dummy, then an attr: ino, size, blocks, atime, mtime, ctime, their nanoseconds, mode, nlink,
uid, gid, rdev, blksize, flags."""
INIT_IN = Struct("<4I")
"""major, minor, max_readahead, flags; flags2 follows with INIT_EXT."""
INIT_OUT = Struct("<4IHHIIHHI28x")
"""major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages, map_alignment,
flags2."""
UINT64 = Struct("<Q")
FORGET_ONE = Struct("<QQ")
BATCH_FORGET_IN = Struct("<II")
GETATTR_IN = Struct("<IIQ")
SETATTR_IN = Struct("<IIQQQQQQIIIIIIII")
"""valid, padding, fh, size, lock_owner, atime, mtime, ctime, their nanoseconds, mode, unused, uid, gid, unused."""
MKNOD_IN = Struct("<4I")
"""mode, rdev, umask, padding."""
MKDIR_IN = Struct("<II")
"""mode, umask."""
RENAME2_IN = Struct("<QII")
"""newdir, flags, padding."""
OPEN_IN = Struct("<II")
"""flags, open_flags."""
OPEN_OUT = Struct("<QII")
"""fh, open_flags, padding."""
CREATE_IN = Struct("<4I")
"""flags, mode, umask, open_flags."""
IO_IN = Struct("<QQIIQII")
"""Of READ, WRITE, READDIR and READDIRPLUS: fh, offset, size, flags of the request, lock_owner, flags of the file, padding."""
WRITE_OUT = Struct("<II")
STATFS_OUT = Struct("<5Q4I24x")
"""blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding."""
FSYNC_IN = Struct("<QII")
SETXATTR_IN = Struct("<II")
GETXATTR_IN = Struct("<II")
GETXATTR_OUT = Struct("<II")
ACCESS_IN = Struct("<II")
LSEEK_IN = Struct("<QQII")
FALLOCATE_IN = Struct("<QQQII")
COPY_FILE_RANGE_IN = Struct("<7Q")
"""fh_in, off_in, nodeid_out, fh_out, off_out, len, flags."""
DIRENT = Struct("<QQII")
"""ino, off, namelen, type; the name follows, padded to 8 bytes."""
