"""One contiguous range of guest memory and the host bytes behind it."""

from collections.abc import Callable

Buffer = memoryview


class MemoryRegion:
    """`size` bytes at guest physical `address`; `buffer` is a writable memoryview of the host side.

    `host_address` is the host virtual address for a backend's slot, `fd`/`fd_offset` its file where there is one. `release`
    unmaps it; a region that a live memoryview still uses cannot be unmapped, so views must not be kept.
    """

    __slots__ = ("_release", "address", "buffer", "fd", "fd_offset", "host_address", "name", "readonly", "size", "slot")

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
        release: Callable[[], None] | None = None,
    ) -> None:
        self.address = address
        self.size = len(buffer)
        self.buffer = buffer
        self.name = name
        self.readonly = readonly
        self.host_address = host_address
        self.fd = fd
        self.fd_offset = fd_offset
        self.slot = -1
        self._release = release

    @property
    def end(self) -> int:
        """One past the last guest physical address."""
        return self.address + self.size

    def close(self) -> None:
        """Give the host memory back; idempotent."""
        self.buffer = memoryview(b"")
        release, self._release = self._release, None
        if release is not None:
            release()
