"""The block device (virtio 1.2, 5.2) over an image of `pyhv.block`.

Reads and writes are done while the driver's notification is handled: they go to the host's page cache. Flushes wait for
the host's storage, so where the machine has threads one is made for each, and the disk's queues rest meanwhile.
"""

from __future__ import annotations

from errno import EINVAL
from struct import Struct

from pyhv._types import TYPE_CHECKING
from pyhv.block.aside import Aside
from pyhv.block.image import SECTOR
from pyhv.errors import ConfigError
from pyhv.log import event
from pyhv.virtio.device import VirtioDevice
from pyhv.virtio.ids import BLOCK

if TYPE_CHECKING:
    from typing import Final

    from pyhv.block.image import Image
    from pyhv.virtio.chain import Chain
    from pyhv.virtio.queue import VirtQueue
    from pyhv.virtio.transport import Transport

# Feature bits [5.2.3]
SEG_MAX, GEOMETRY, RO, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE, MQ, DISCARD, WRITE_ZEROES = 2, 4, 5, 6, 9, 10, 11, 12, 13, 14

# Request types and status [5.2.6]
IN, OUT, T_FLUSH, GET_ID, T_DISCARD, T_WRITE_ZEROES = 0, 1, 4, 8, 11, 13
OK, IOERR, UNSUPP = 0, 1, 2
UNMAP = 1
"""Flag of a range to be zeroed."""

QUEUE_SIZE: Final = 256
MAX_QUEUES: Final = 256
ID_LENGTH: Final = 20
MAX_DISCARD_RANGES: Final = 16
MAX_DISCARD: Final = 1 << 28
MAX_ZEROES: Final = 1 << 26
"""Bytes of one range."""
MAX_UNITS: Final = 4096
"""Units of the image that one range has at most, so that small ones do not take long."""
BUDGET: Final = 1 << 26
"""Bytes that are transferred, or zeroed, before others of the machine have their turn."""
DISCARDED_BYTES: Final = 16
"""Bytes to be discarded that take as long as one that is transferred; rather more."""
HEADS, TRACK = 16, 63
"""Of the geometry: heads, and sectors of a track."""
PHYSICAL_EXPONENT: Final = 3
"""Sectors of a physical block, as a power of two: the host's pages."""
WRITEBACK_OFFSET: Final = 32
_LOGGED = 16

_HEADER = Struct("<IIQ")
_HEADER_SIZE = _HEADER.size
_header = _HEADER.unpack
_RANGE = Struct("<QII")
_CONFIG = Struct("<QIIHBBIBBHIBxHIIIIIB3x12x")


class VirtioBlock(VirtioDevice):
    """A disk. The image is the device's from now on: it is closed with it.

    `serial`: up to 20 characters of ASCII for GET_ID; `queues`: request queues, all alike. `errors` counts the requests that
    failed, be it for the driver, the image or the host; the machine goes on. Raises ConfigError.
    """

    name = "disk"
    device_id = BLOCK

    def __init__(self, image: Image, *, serial: str = "", queues: int = 1, transport: str = "pci") -> None:
        super().__init__(transport=transport)
        if not serial.isascii() or len(serial) > ID_LENGTH:
            raise ConfigError(f"disk: serial: {serial!r} is not ASCII of up to {ID_LENGTH} characters")
        if not 1 <= queues <= MAX_QUEUES:
            raise ConfigError(f"disk: queues: '{queues}' is not from 1 to {MAX_QUEUES}")
        self.image = image
        self.queue_sizes = (QUEUE_SIZE,) * queues
        self.errors = 0
        offered = [SEG_MAX, GEOMETRY, BLK_SIZE, FLUSH, TOPOLOGY, CONFIG_WCE]
        offered += [RO] if image.readonly else [DISCARD, WRITE_ZEROES]
        offered += [MQ] if queues > 1 else []
        self._offered = offered
        self.features = sum(1 << bit for bit in offered)
        self._serial = serial.encode().ljust(ID_LENGTH, b"\0")
        self._writeback: bool | None = None
        self._through = False
        self._busy = False
        self._closed = False

    def connect(self, link: Transport) -> None:
        super().connect(link)
        self._aside = Aside(link.platform.events)

    def close(self) -> None:
        super().close()
        if self._closed:
            return
        self._closed = True
        if self._busy:
            self._aside.wait()
        self.image.close()

    # Configuration [5.2.4]

    def config(self) -> bytes:
        unit = self.image.unit // SECTOR
        sectors = self.image.size // SECTOR
        cylinders = min(sectors // (HEADS * TRACK), 0xFFFF)
        return _CONFIG.pack(
            sectors, 0, QUEUE_SIZE - 2, cylinders, HEADS, TRACK, SECTOR,
            PHYSICAL_EXPONENT, 0, 1 << PHYSICAL_EXPONENT, unit,
            not self._write_through(), len(self.queue_sizes),
            self._range_limit(MAX_DISCARD) // SECTOR, MAX_DISCARD_RANGES, unit,
            self._range_limit(MAX_ZEROES) // SECTOR, 1, WRITE_ZEROES in self._offered,
        )  # fmt: skip

    def _range_limit(self, most: int) -> int:
        return min(most, self.image.unit * MAX_UNITS)

    def write_config(self, offset: int, data: bytes) -> None:
        if self.has(CONFIG_WCE) and offset <= WRITEBACK_OFFSET < offset + len(data):
            self._writeback = bool(data[WRITEBACK_OFFSET - offset])
            self._through = self._write_through()

    def _write_through(self) -> bool:
        """Whether a write is stable once it is completed (5.2.6.2)."""
        if self.has(CONFIG_WCE) and self._writeback is not None:
            return not self._writeback
        return bool(self.negotiated) and not self.has(FLUSH)

    def activate(self) -> None:
        self._through = self._write_through()

    def deactivate(self) -> None:
        self._writeback = None

    # Requests [5.2.6]

    def handle(self, queue: VirtQueue) -> None:
        image, budget = self.image, BUDGET
        pop, push = queue.pop, queue.push
        volatile: list[tuple[VirtQueue, Chain]] = []
        for _ in range(queue.size):
            chain = None if self._busy else pop()
            if chain is None:
                break
            size = chain.writable_size - 1
            if size < 0 or chain.readable_size < _HEADER_SIZE:
                self._complete(queue, chain, IOERR)
                continue
            kind, _, sector = _header(chain.read(0, _HEADER_SIZE))
            if (size if kind == IN else chain.readable_size) > BUDGET and kind in (IN, OUT):
                if volatile:
                    queue.unpop(chain)
                    queue.postpone()
                    break
                self._transfer_in_pieces(queue, chain, kind, sector * SECTOR)
                break
            if kind == IN:
                views = chain.writable_views()
                last = views.pop()
                status = last[-1:]
                if len(last) > 1:
                    views.append(last[:-1])
                try:
                    if size % SECTOR:
                        raise OSError(EINVAL, "not whole sectors")
                    image.preadv(views, sector * SECTOR, size)
                except OSError as error:
                    self._note(error)
                    status[0] = IOERR
                    push(chain, 0 if size else 1)
                else:
                    status[0] = OK
                    push(chain, size + 1)
                budget -= size
            elif kind == T_FLUSH:
                volatile.append((queue, chain))
                self._make_stable(volatile)
                volatile = []
            elif kind == GET_ID:
                self._identify(queue, chain, size)
            else:
                result, work = self._request(kind, sector, chain)
                if self._through and result == OK and kind in (OUT, T_WRITE_ZEROES):
                    volatile.append((queue, chain))
                else:
                    self._complete(queue, chain, result)
                budget -= work
            if budget <= 0:
                queue.postpone()
                break
        else:
            queue.postpone()
        if volatile:
            self._make_stable(volatile)

    def _request(self, kind: int, sector: int, chain: Chain) -> tuple[int, int]:
        """Do what changes the image: the status, and how much work that was, in bytes of transfers."""
        try:
            if kind == OUT:
                size = chain.readable_size - _HEADER_SIZE
                if size % SECTOR:
                    raise OSError(EINVAL, "not whole sectors")
                self.image.pwritev(chain.readable_views(_HEADER_SIZE), sector * SECTOR, size)
                return OK, size
            if kind == T_DISCARD and self.has(DISCARD):
                return self._discard(chain)
            if kind == T_WRITE_ZEROES and self.has(WRITE_ZEROES):
                return self._write_zeroes(chain)
        except OSError as error:
            self._note(error)
            return IOERR, 0
        return UNSUPP, 0

    def _discard(self, chain: Chain) -> tuple[int, int]:
        ranges = self._ranges(chain, MAX_DISCARD_RANGES, MAX_DISCARD)
        if any(flags for _, _, flags in ranges):
            return UNSUPP, 0
        for offset, length, _ in ranges:
            self.image.discard(offset, length)
        return OK, sum(length for _, length, _ in ranges) // DISCARDED_BYTES

    def _write_zeroes(self, chain: Chain) -> tuple[int, int]:
        ranges = self._ranges(chain, 1, MAX_ZEROES)
        if any(flags & ~UNMAP for _, _, flags in ranges):
            return UNSUPP, 0
        for offset, length, flags in ranges:
            self.image.write_zeroes(offset, length, unmap=bool(flags & UNMAP))
        return OK, sum(length for _, length, _ in ranges)

    def _ranges(self, chain: Chain, most: int, longest: int) -> list[tuple[int, int, int]]:
        """The offset, length and flags of each range of a request; none is done when one is not inside the image."""
        size = chain.readable_size - _HEADER_SIZE
        if not size or size % _RANGE.size or size > most * _RANGE.size:
            raise OSError(EINVAL, f"{size} bytes of ranges")
        ranges = [(s * SECTOR, n * SECTOR, flags) for s, n, flags in _RANGE.iter_unpack(chain.read(_HEADER_SIZE))]
        for offset, length, _ in ranges:
            if length > self._range_limit(longest):
                raise OSError(EINVAL, f"a range of {length} bytes")
            self.image.check(offset, length)
        return ranges

    def _complete(self, queue: VirtQueue, chain: Chain, status: int) -> None:
        """Return a request with its status, the last byte that can be written, where there is one."""
        size = chain.writable_size
        if size:
            chain.write(bytes((status,)), size - 1)
        queue.push(chain, 1 if size == 1 else 0)  # bytes written count from the beginning (2.7.8.2)

    def _identify(self, queue: VirtQueue, chain: Chain, size: int) -> None:
        """GET_ID: as much of the serial number as there is room for."""
        text = self._serial[:size]
        chain.write(text)
        chain.write(bytes((OK,)), size)
        queue.push(chain, size + 1 if size == len(text) else len(text))

    def _make_stable(self, volatile: list[tuple[VirtQueue, Chain]]) -> None:
        """Complete requests once all that was written before is on stable storage."""

        def done(error: OSError | None) -> None:
            self._busy = False
            if error is not None:
                self._note(error)
            for queue, chain in volatile:
                if chain.ring is queue.ring:  # nobody reset it meanwhile
                    self._complete(queue, chain, OK if error is None else IOERR)

        def done_later(error: OSError | None) -> None:
            if not self._closed:
                self.guarded(lambda: done(error))()
                self._go_on()

        self._busy = self._aside.threaded
        self._aside.run(self.image.flush, done_later if self._busy else done)

    def _transfer_in_pieces(self, queue: VirtQueue, chain: Chain, kind: int, offset: int) -> None:
        """Do a long read or write with turns of others of the machine in between; the disk's queues rest meanwhile."""
        size = chain.writable_size - 1 if kind == IN else chain.readable_size - _HEADER_SIZE
        done = 0

        def transfer() -> int:
            """One piece; how many bytes are left."""
            nonlocal done
            if not done:
                if size % SECTOR:
                    raise OSError(EINVAL, "not whole sectors")
                self.image.check(offset, size)
            piece = min(size - done, BUDGET)
            if kind == IN:
                self.image.preadv(chain.writable_views(done, piece), offset + done, piece)
            else:
                self.image.pwritev(chain.readable_views(_HEADER_SIZE + done, piece), offset + done, piece)
            done += piece
            return size - done

        def turn() -> None:
            if self._closed:
                return
            self._busy = False
            if chain.ring is queue.ring:  # nobody reset it meanwhile
                self.guarded(step)()
            if not self._busy:
                self._go_on()

        def step() -> None:
            try:
                left = transfer()
            except OSError as error:
                self._note(error)
                self._complete(queue, chain, IOERR)
                return
            if left:
                self._busy = True
                self.platform.events.call_soon(turn)
            elif kind == IN:
                chain.write(bytes((OK,)), size)
                queue.push(chain, size + 1)
            elif self._through:
                self._make_stable([(queue, chain)])
            else:
                self._complete(queue, chain, OK)

        self._busy = True
        self.platform.events.call_soon(turn)

    def _go_on(self) -> None:
        """The disk's queues were resting."""
        for queue in self.queues:
            if queue.ready:
                self.link.handle(queue)

    def _note(self, error: OSError) -> None:
        """Count a request that failed."""
        self.errors += 1
        if self.errors <= _LOGGED:
            event("block.error", device=self.label, error=str(error))
