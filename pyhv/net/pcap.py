"""Captures: the frames of a device in a file that tcpdump and Wireshark read.

The file is a classic pcap with nanoseconds (draft-ietf-opsawg-pcap). A frame is in the file when the device is done with it.
Checksums that were left to the host, or to the guest, are not computed in it.
"""

from __future__ import annotations

import os
from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.log import event

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

MAGIC: Final = 0xA1B23C4D
SNAP_LENGTH: Final = 1 << 17
LINK_ETHERNET: Final = 1
MOST_PIECES: Final = 1000
"""What writev takes (IOV_MAX is 1024)."""

_FILE_HEADER = Struct("<IHHiIII")
_RECORD = Struct("<IIII")


_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class Capture:
    """An open capture file, or a FIFO that somebody reads. One that takes no more ends the capture, nothing else."""

    def __init__(self, path: str) -> None:
        """Begin the file anew. Raises ConfigError."""
        self.path = path
        self._fd = -1
        try:
            self._fd = os.open(path, _FLAGS, 0o644)
            os.write(self._fd, _FILE_HEADER.pack(MAGIC, 2, 4, 0, 0, SNAP_LENGTH, LINK_ETHERNET))
        except OSError as error:
            self.close()
            raise ConfigError(f"net: pcap: {path!r} cannot be written: {error.strerror}") from None

    def write(self, wall_ns: int, frame: Sequence[bytes | memoryview]) -> None:
        """One frame in pieces, seen at `wall_ns` (nanoseconds since the Unix epoch)."""
        if self._fd < 0:
            return
        length = sum(map(len, frame))
        seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
        record = _RECORD.pack(seconds & 0xFFFF_FFFF, nanoseconds, length, length)
        pieces = (record, *frame) if len(frame) < MOST_PIECES else (record, b"".join(frame))
        try:
            written = os.writev(self._fd, pieces)
            error = "" if written == len(record) + length else "it takes no more"
        except OSError as failure:
            error = str(failure.strerror)
        if error:
            event("net_capture_ended", path=self.path, error=error)
            self.close()

    def close(self) -> None:
        """Close the file. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
