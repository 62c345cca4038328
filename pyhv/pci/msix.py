"""MSI-X (PCI 3.0, 6.8.2): a table of messages and their pending bits in a range of the function's own."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.pci.message import Vector
from pyhv.pci.words import read_words, write_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.pci.config import ConfigSpace
    from pyhv.pci.message import MakeSource

ENABLE, FUNCTION_MASK = 1 << 15, 1 << 14
CONTROL, TABLE, PENDING_BITS = 0x02, 0x04, 0x08
SIZE = 0x0C
MAX_VECTORS = 2048
ENTRY_WORDS = 4
ADDRESS, ADDRESS_HIGH, DATA, VECTOR_CONTROL = range(ENTRY_WORDS)
MASKED = 1
WRITABLE = (0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, MASKED)
MIN_HALF = 2048


def half_size(vectors: int) -> int:
    """Bytes of each half of the range: the table is in the first, the pending bits in the second; a power of two."""
    return max(MIN_HALF, 1 << (16 * vectors - 1).bit_length())


class MsixCapability:
    """The registers at `at`, and the handler of the range (BAR `bar`) that they point to."""

    def __init__(
        self,
        config: ConfigSpace,
        at: int,
        vectors: int,
        bar: int,
        *,
        make_source: MakeSource,
        allowed: Callable[[], bool],
        switched: Callable[[], None],
    ) -> None:
        self._config = config
        self._at = at
        self._allowed = allowed
        self._switched = switched
        self._vectors = [Vector(make_source) for _ in range(vectors)]
        self._half = half_size(vectors)
        self.enabled = self._masked = False
        self._reset_table()
        config.define(at + CONTROL, 2, vectors - 1, ENABLE | FUNCTION_MASK)
        config.define(at + TABLE, 4, bar)
        config.define(at + PENDING_BITS, 4, self._half | bar)
        config.on_write(at, self._control_written)

    @property
    def vectors(self) -> int:
        """How many entries the table has."""
        return len(self._vectors)

    def fire(self, vector: int) -> None:
        """Send a vector's message, now or when it is unmasked. Vectors that there are not send nothing."""
        if not self.enabled or not 0 <= vector < len(self._vectors):
            return
        if self._masked or self._table[vector * ENTRY_WORDS + VECTOR_CONTROL] & MASKED or not self._allowed():
            self._pending |= 1 << vector
        else:
            self._send(vector)

    def update(self) -> None:
        """Send what waited for a mask to go, or for the function to be let write to memory."""
        if self._masked or not self._pending or not self._allowed():
            return
        for vector in range(len(self._vectors)):
            self._serve(vector)

    def reset(self) -> None:
        """All vectors masked; the registers were reset."""
        self.enabled = self._masked = False
        self._reset_table()

    def close(self) -> None:
        """Give the backend's sources back."""
        for vector in self._vectors:
            vector.close()

    def read(self, offset: int, size: int) -> int:
        """The table and the pending bits."""
        return read_words(self._word, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Only the table can be written."""
        write_words(self._store, offset, size, value)

    def _reset_table(self) -> None:
        self._table = [0, 0, 0, MASKED] * len(self._vectors)
        self._pending = 0
        for vector in self._vectors:
            vector.set(0, 0)

    def _control_written(self) -> None:
        control = self._config.get(self._at + CONTROL, 2)
        enabled = bool(control & ENABLE)
        self._masked = bool(control & FUNCTION_MASK)
        if enabled != self.enabled:
            self.enabled = enabled
            if not enabled:
                self._pending = 0
            self._switched()
        self.update()

    def _word(self, index: int) -> int:
        if index < len(self._table):
            return self._table[index]
        pending_index = index - self._half // 4
        return self._pending >> 32 * pending_index & 0xFFFF_FFFF if pending_index >= 0 else 0

    def _store(self, index: int, bits: int, lanes: int) -> None:
        if index >= len(self._table):
            return
        vector, field = divmod(index, ENTRY_WORDS)
        lanes &= WRITABLE[field]
        self._table[index] = self._table[index] & ~lanes | bits & lanes
        if field == VECTOR_CONTROL:
            if not self._masked and self._allowed():
                self._serve(vector)
        else:
            address, high, data, _ = self._table[vector * ENTRY_WORDS : (vector + 1) * ENTRY_WORDS]
            self._vectors[vector].set(address | high << 32, data)

    def _serve(self, vector: int) -> None:
        if self._pending >> vector & 1 and not self._table[vector * ENTRY_WORDS + VECTOR_CONTROL] & MASKED:
            self._pending &= ~(1 << vector)
            self._send(vector)

    def _send(self, vector: int) -> None:
        self._vectors[vector].send()
