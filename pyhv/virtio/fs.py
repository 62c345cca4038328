"""The file system device (virtio 1.2, 5.11): a folder of the host, by the FUSE protocol."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.ids import FS

if TYPE_CHECKING:
    from typing import Final

    from pyhv.fs.server import Server
    from pyhv.virtio.queue import VirtQueue

TAG_SIZE: Final = 36
HIPRIO_SIZE: Final = 128
QUEUE_SIZE: Final = 1024
"""A request of 1 MiB takes some 260 descriptors; Linux splits requests that do not fit a queue."""
MAX_QUEUES: Final = 16
TURN: Final = 32
"""Requests of one queue before others of the machine have their turn: each may take milliseconds."""


class VirtioFs(VirtioDevice):
    """Serves what `server` serves under `tag`, by `queues` request queues besides the high priority one (5.11.2).

    Requests are done in the order in which they came, a few at once; the host's disk is waited for. Raises ConfigError.
    """

    name = "fs"
    device_id = FS

    def __init__(self, server: Server, *, tag: str = "share", queues: int = 1, transport: str = "pci") -> None:
        super().__init__(transport=transport)
        encoded = tag.encode()
        if not 0 < len(encoded) <= TAG_SIZE or "\0" in tag:
            raise ConfigError(f"share: tag: {tag!r} is not a name of 1 to {TAG_SIZE} bytes")
        if not 1 <= queues <= MAX_QUEUES:
            raise ConfigError(f"share: queues: '{queues}' is not from 1 to {MAX_QUEUES}")
        self.server = server
        self.queue_sizes = (HIPRIO_SIZE, *(QUEUE_SIZE,) * queues)
        self._config = encoded.ljust(TAG_SIZE, b"\0") + queues.to_bytes(4, "little")

    def config(self) -> bytes:
        """struct virtio_fs_config: tag, num_request_queues (5.11.4)."""
        return self._config

    def handle(self, queue: VirtQueue) -> None:
        serve, pop, push = self.server.serve, queue.pop, queue.push
        for _ in range(TURN):
            chain = pop()
            if chain is None:
                return
            push(chain, serve(chain))
        queue.postpone()

    def deactivate(self) -> None:
        self.server.reset()

    def close(self) -> None:
        super().close()
        self.server.close()
