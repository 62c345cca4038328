"""A request as the server takes it, and what an operation gives back."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.fs.server import Server
    from pyhv.fs.sync import Sync
    from pyhv.fs.tree import Node


class Message(Protocol):
    """A request and the room for its reply, as `pyhv.virtio.chain.Chain`."""

    readable_size: int
    writable_size: int

    def read(self, offset: int = 0, size: int | None = None) -> bytes: ...

    def write(self, data: bytes, offset: int = 0) -> None: ...

    def readable_views(self, offset: int = 0, size: int | None = None) -> list[memoryview]: ...

    def writable_views(self, offset: int = 0, size: int | None = None) -> list[memoryview]: ...


if TYPE_CHECKING:
    Reply = bytes | int | Sync
    """What follows the header: bytes, or the number of bytes that are in place already; nothing after a Sync."""
    Operation = tuple[Callable[[Server, Node, bytes, Message], Reply], int, int]
    """A handler, the size of its request's fixed part after the header, and of its reply's."""
