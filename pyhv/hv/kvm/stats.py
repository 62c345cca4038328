"""KVM's binary statistics (KVM_GET_STATS_FD)."""

from __future__ import annotations

import os
import struct

from pyhv.hv.kvm.native import request_value
from pyhv.record import record

_HEADER = struct.Struct("<6I")
_DESCRIPTOR = struct.Struct("<IhHII")


@record(frozen=True)
class Descriptor:
    """One counter: `count` 64-bit values at byte `offset` of the data; `kind`, `unit`, `base` as in the ABI's flags."""

    name: str
    kind: int
    unit: int
    base: int
    exponent: int
    count: int
    offset: int


def parse(header: bytes, descriptors: bytes) -> list[Descriptor]:
    """The descriptors behind a header."""
    _, name_size, number, _, _, _ = _HEADER.unpack_from(header)
    stride = _DESCRIPTOR.size + name_size
    out = []
    for i in range(number):
        flags, exponent, count, offset, _ = _DESCRIPTOR.unpack_from(descriptors, i * stride)
        start = i * stride + _DESCRIPTOR.size
        name = descriptors[start : start + name_size].partition(b"\0")[0].decode("ascii", "replace")
        out.append(Descriptor(name, flags & 15, flags >> 4 & 15, flags >> 8 & 15, exponent, count, offset))
    return out


class Statistics:
    """The counters of a VM or a vCPU. Histograms are given as the sum of their buckets."""

    def __init__(self, owner_fd: int) -> None:
        self._fd = request_value(owner_fd, "KVM_GET_STATS_FD")
        header = os.pread(self._fd, _HEADER.size, 0)
        _, name_size, number, _, desc_offset, self._data_offset = _HEADER.unpack(header)
        self.descriptors = parse(header, os.pread(self._fd, number * (_DESCRIPTOR.size + name_size), desc_offset))
        self._size = max((d.offset + 8 * d.count for d in self.descriptors), default=0)

    def read(self) -> dict[str, int]:
        """The counters now."""
        data = os.pread(self._fd, self._size, self._data_offset)
        return {d.name: sum(struct.unpack_from(f"<{d.count}Q", data, d.offset)) for d in self.descriptors}

    def close(self) -> None:
        """Close the descriptor; idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
