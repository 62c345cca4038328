"""The file system device (virtio 1.2, 5.11): a folder of the host, by the FUSE protocol."""

from __future__ import annotations

from collections import deque

from pyhv._builtin import partial
from pyhv._types import TYPE_CHECKING
from pyhv.block.aside import Aside
from pyhv.errors import ConfigError
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.ids import FS

if TYPE_CHECKING:
    from typing import Final

    from pyhv.fs.server import Server
    from pyhv.fs.sync import Sync
    from pyhv.virtio.chain import Chain
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

TAG_SIZE: Final = 36
HIPRIO_SIZE: Final = 128
QUEUE_SIZE: Final = 1024
"""A request of 1 MiB takes some 260 descriptors; Linux splits requests that do not fit a queue."""
MAX_QUEUES: Final = 16
TURN: Final = 32
"""Requests of one queue before others of the machine have their turn: each may take milliseconds."""


class VirtioFs(VirtioDevice):
    """Serves what `server` serves under `tag`, by `queues` request queues besides the high priority one (5.11.2).

    Requests are done in the order in which they came, a few at once. Those that make the host's disk wait for all that was
    written (FSYNC, SYNCFS) wait in a thread of their own, where the machine has threads. Raises ConfigError.
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
        self._syncs: deque[tuple[VirtQueue, Chain, Sync]] = deque()
        self._closed = False
        self._config = encoded.ljust(TAG_SIZE, b"\0") + queues.to_bytes(4, "little")

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self._aside = Aside(link.platform.events)
        self.server.deferring = self._aside.threaded

    def config(self) -> bytes:
        """struct virtio_fs_config: tag, num_request_queues (5.11.4)."""
        return self._config

    def handle(self, queue: VirtQueue) -> None:
        serve, pop, push = self.server.serve, queue.pop, queue.push
        for _ in range(TURN):
            chain = pop()
            if chain is None:
                return
            done = serve(chain)
            if isinstance(done, int):
                push(chain, done)
            else:
                self._syncs.append((queue, chain, done))
                if len(self._syncs) == 1:
                    self._sync()
        queue.postpone()

    def _sync(self) -> None:
        """Begin with the first that waits for the disk."""
        sync = self._syncs[0][2]
        try:
            sync.begin()
        except OSError as error:
            self.platform.events.call_soon(partial(self._synced, error))
        else:
            self._aside.run(sync.run, self._synced)

    def _synced(self, error: OSError | None) -> None:
        if self._closed:
            return
        queue, chain, sync = self._syncs.popleft()
        if chain.ring is queue.ring:  # nobody reset it meanwhile
            self.guarded(lambda: queue.push(chain, self.server.answer(chain, sync, error)))()
            queue.flush()
        if self._syncs:
            self._sync()

    def queue_reset(self, queue: VirtQueue) -> None:
        waiting = list(self._syncs)
        self._syncs = deque(waiting[:1])  # it is under way
        self._syncs += [entry for entry in waiting[1:] if entry[0] is not queue]

    def deactivate(self) -> None:
        self._syncs = deque(list(self._syncs)[:1])
        self.server.reset()

    def close(self) -> None:
        super().close()
        if self._closed:
            return
        self._closed = True
        if self._syncs:
            self._aside.wait()
        self.server.close()
