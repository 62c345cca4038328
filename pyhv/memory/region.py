"""One contiguous range of guest memory and the host bytes behind it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Buffer = memoryview
_ZEROS = 1 << 20


class MemoryRegion:
    """`size` bytes at guest physical `address`; `buffer` is a writable memoryview of the host side.

    `host_address` is the host virtual address for a backend's slot, `fd`/`fd_offset` its file where there is one,
    `slot` the backend's number for it, `page_size` the least that the host takes back. `release` gives back what hangs on
    the region besides the mapping, which goes with the last view of it: a view that outlives the region keeps its memory,
    it never dangles.
    """

    __slots__ = (
        "_discard",
        "_release",
        "address",
        "buffer",
        "fd",
        "fd_offset",
        "guest_memfd",
        "host_address",
        "name",
        "page_size",
        "readonly",
        "size",
        "slot",
    )

    def __init__(
        self,
        address: int,
        buffer: Buffer,
        *,
        name: str = "ram",
        readonly: bool = False,
        host_address: int = 0,
        fd: int = -1,
        fd_offset: int = 0,
        guest_memfd: bool = False,
        page_size: int = 4096,
        release: Callable[[], None] | None = None,
        discard: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.address = address
        self.size = len(buffer)
        self.buffer = buffer
        self.name = name
        self.readonly = readonly
        self.host_address = host_address
        self.fd = fd
        self.fd_offset = fd_offset
        self.guest_memfd = guest_memfd
        self.page_size = page_size
        self.slot = -1
        self._release = release
        self._discard = discard

    @property
    def end(self) -> int:
        """One past the last guest physical address."""
        return self.address + self.size

    def discard(self) -> None:
        """Zero the whole region, giving its pages back to the host where it takes them."""
        if self._discard is None or not self._discard(0, self.size):
            for start in range(0, self.size, _ZEROS):
                piece = self.buffer[start : start + _ZEROS]
                piece[:] = bytes(len(piece))

    @property
    def discardable(self) -> bool:
        """Whether parts of it can be given back to the host."""
        return self._discard is not None and not self.readonly

    def whole_pages(self, offset: int, size: int) -> tuple[int, int]:
        """Offset and size of the host's whole pages within a range of the region; the size is 0 where there are none."""
        first = -(-offset // self.page_size) * self.page_size
        return first, max(0, (offset + size) // self.page_size * self.page_size - first)

    def discard_range(self, offset: int, size: int) -> int:
        """Give the host's whole pages within a range back to it, as zeros; how many bytes it took."""
        first, size = self.whole_pages(offset, size)
        if not size or self._discard is None or self.readonly or not self._discard(first, size):
            return 0
        return size

    def close(self) -> None:
        """Give the host memory back; idempotent."""
        self.buffer = memoryview(b"")
        self._discard = None
        release, self._release = self._release, None
        if release is not None:
            release()
