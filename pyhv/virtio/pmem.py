"""The persistent memory device (virtio 1.2, 5.19): a file as guest memory, made stable when the driver asks for it.

Where guest memory can be a file's, it is that file's page cache, shared. Elsewhere, and for what is not to be written, it is
a copy; what the guest changed in it goes to the file with each flush and at the end.
"""

from __future__ import annotations

from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.block.aside import Aside
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.ids import PMEM

if TYPE_CHECKING:
    from typing import Final

    from pyhv.block.host_file import HostFile
    from pyhv.memory import MemoryRegion
    from pyhv.virtio.chain import Chain
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

FLUSH: Final = 0
OK, FAILED = bytes(4), b"\xff" * 4
"""0 and -1 [5.19.7.2]."""
ALIGNMENT: Final = 2 << 20
"""Of the memory's address and size: what Linux takes for a namespace, and the host's large pages."""
QUEUE_SIZE: Final = 64
PIECE: Final = 1 << 20

_CONFIG = Struct("<QQ")
_TYPE_SIZE = 4


class VirtioPmem(VirtioDevice):
    """The file is the device's from now on: it is closed with it. It must not become shorter meanwhile.

    A file that is not opened for writing is memory that the guest cannot write; with `overlay` it can, and what it writes is
    forgotten. `errors` counts flushes that failed. Raises ConfigError for a size that is no multiple of ALIGNMENT, and for
    a writable file whose storage the host cannot set aside.
    """

    name = "pmem"
    device_id = PMEM
    queue_sizes = (QUEUE_SIZE,)
    region: MemoryRegion

    def __init__(self, file: HostFile, *, overlay: bool = False, transport: str = "pci") -> None:
        super().__init__(transport=transport)
        self.file = file
        if not file.size or file.size % ALIGNMENT:
            raise ConfigError(f"pmem: path: {file.path!r} has {file.size} bytes, no multiple of {ALIGNMENT >> 20} MiB")
        self.errors = 0
        self._overlay = overlay
        self._shared = False
        self._busy = False
        self._closed = False
        if file.writable:
            try:
                file.set_aside()
            except OSError as error:
                raise ConfigError(f"pmem: path: {file.path!r}: {file.size >> 20} MiB: {error.strerror}") from None

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self._aside = Aside(link.platform.events)
        writable = self.file.writable
        self.region = link.platform.map_memory(
            self.file.size,
            alignment=ALIGNMENT,
            fd=self.file.fd if writable else -1,
            readonly=not (writable or self._overlay),
            name="pmem",
        )
        self._shared = writable and self.region.fd >= 0
        if not self._shared:
            try:
                self._load()
            except OSError as error:
                raise ConfigError(f"pmem: path: {self.file.path!r} cannot be read: {error.strerror}") from None

    def config(self) -> bytes:
        return _CONFIG.pack(self.region.address, self.region.size)

    def close(self) -> None:
        super().close()
        if self._closed:
            return
        self._closed = True
        try:
            if self._busy:
                self._aside.wait()
            if hasattr(self, "region"):
                self._make_stable()
        finally:
            self.file.close()

    def handle(self, queue: VirtQueue) -> None:
        if self._busy:
            return
        flushes = []
        for chain in queue.chains():
            kind = chain.read(0, _TYPE_SIZE)
            if chain.writable_size < len(OK):
                queue.push(chain)
            elif len(kind) < _TYPE_SIZE or int.from_bytes(kind, "little") != FLUSH:
                _answer(queue, chain, FAILED)
            else:
                flushes.append(chain)
        if flushes:
            self._flush(queue, flushes)

    def _flush(self, queue: VirtQueue, chains: list[Chain]) -> None:
        def done(error: OSError | None) -> None:
            self._busy = False
            if error is not None:
                self.errors += 1
                event("pmem.error", device=self.label, error=str(error))
            for chain in chains:
                if chain.ring is queue.ring:  # nobody reset it meanwhile
                    _answer(queue, chain, OK if error is None else FAILED)

        def done_later(error: OSError | None) -> None:
            if not self._closed:
                self.guarded(lambda: done(error))()
                if queue.ready:
                    self.link.handle(queue)

        if self._shared and self._aside.threaded:
            self._busy = True
            self._aside.run(self._make_stable, done_later)
            return
        try:
            self._make_stable()
        except OSError as error:
            done(error)
        else:
            done(None)

    def _make_stable(self) -> None:
        if self.file.writable:
            if not self._shared:
                self._store()
            self.file.sync()

    def _load(self) -> None:
        """Copy the file into its memory, which is fresh; what is zeros in it already stays untouched."""
        memory, start = self.platform.memory, self.region.address
        for offset in range(0, self.file.size, PIECE):
            piece = self.file.read(offset, PIECE)
            if piece.strip(b"\0"):
                memory.load(start + offset, piece)

    def _store(self) -> None:
        """Write back what differs from the file."""
        memory, start = self.platform.memory, self.region.address
        for offset in range(0, self.file.size, PIECE):
            piece = memory.read(start + offset, PIECE)
            if piece != self.file.read(offset, PIECE):
                self.file.write(offset, piece)


def _answer(queue: VirtQueue, chain: Chain, result: bytes) -> None:
    chain.write(result)
    queue.push(chain, len(result))
