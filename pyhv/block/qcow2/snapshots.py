"""Internal snapshots: not used and not changed, but where their tables are must be known."""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError

if TYPE_CHECKING:
    from pyhv.block.host_file import HostFile
    from pyhv.block.qcow2.header import Header
    from pyhv.block.qcow2.reserved import Reserved

MAX_TABLE_BYTES = 64 << 20
MAX_L1_BYTES = 64 << 20
"""Of all snapshots together."""

_ENTRY = struct.Struct(">QIHHIIQII")


def claim(file: HostFile, header: Header, reserved: Reserved) -> None:
    """Reserve the table of snapshots and their L1 tables. Raises ConfigError when they are not where they can be."""
    offset = header.snapshots_offset
    l1_bytes = 0
    for number in range(header.snapshots):
        if offset + _ENTRY.size > file.size or offset - header.snapshots_offset > MAX_TABLE_BYTES:
            raise ConfigError(f"disk: {file.path!r}: snapshot {number} is not inside the file")
        l1_offset, l1_size, id_size, name_size, _, _, _, _, extra = _ENTRY.unpack(file.read(offset, _ENTRY.size))
        l1_bytes += l1_size * 8
        outside = l1_offset % header.cluster_size or l1_offset + l1_size * 8 > file.size
        if l1_bytes > MAX_L1_BYTES or (l1_size and outside):
            raise ConfigError(f"disk: {file.path!r}: the L1 table of snapshot {number} is not inside the file")
        reserved.claim(f"the L1 table of snapshot {number}", l1_offset, l1_size * 8)
        offset += (_ENTRY.size + id_size + name_size + extra + 7) & -8
    reserved.claim("the snapshot table", header.snapshots_offset, offset - header.snapshots_offset)
