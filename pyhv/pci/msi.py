"""Message signalled interrupts with 64-bit addresses and masks for each vector (PCI 3.0, 6.8.1)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.pci.message import Vector

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.pci.config import ConfigSpace
    from pyhv.pci.message import MakeSource

ENABLE = 1 << 0
CAPABLE_SHIFT, ALLOCATED_SHIFT = 1, 4
ADDRESS_64, VECTOR_MASKS = 1 << 7, 1 << 8
CONTROL, ADDRESS, ADDRESS_HIGH, DATA, MASKS, PENDING = 0x02, 0x04, 0x08, 0x0C, 0x10, 0x14
SIZE = 0x18
MAX_VECTORS = 32


class MsiCapability:
    """The registers at `at` in a function's configuration space. `allowed()` says whether it may write to memory."""

    def __init__(
        self,
        config: ConfigSpace,
        at: int,
        vectors: int,
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
        self.enabled = False
        capable = vectors.bit_length() - 1
        control = capable << CAPABLE_SHIFT | ADDRESS_64 | VECTOR_MASKS
        config.define(at + CONTROL, 2, control, ENABLE | 7 << ALLOCATED_SHIFT)
        config.define(at + ADDRESS, 4, 0, 0xFFFF_FFFC)
        config.define(at + ADDRESS_HIGH, 4, 0, 0xFFFF_FFFF)
        config.define(at + DATA, 2, 0, 0xFFFF)
        config.define(at + MASKS, 4, 0, (1 << vectors) - 1)
        for offset in (0, MASKS):
            config.on_write(at + offset, self.update)

    def fire(self, vector: int) -> None:
        """Send a vector's message, now or when it is unmasked. Vectors beyond those allocated share them."""
        if not self.enabled:
            return
        vector %= self._allocated()
        if self._config.get(self._at + MASKS, 4) >> vector & 1 or not self._allowed():
            self._put_pending(self._pending() | 1 << vector)
        else:
            self._send(vector)

    def update(self) -> None:
        """Software changed a register, or whether the function may write to memory: send what waited for that."""
        enabled = bool(self._config.get(self._at + CONTROL, 2) & ENABLE)
        if enabled != self.enabled:
            self.enabled = enabled
            if not enabled:
                self._put_pending(0)
            self._switched()
        ready = self._pending() & ~self._config.get(self._at + MASKS, 4)
        if not ready or not self._allowed():
            return
        self._put_pending(self._pending() & ~ready)
        for vector in range(len(self._vectors)):
            if ready >> vector & 1:
                self._send(vector)

    def reset(self) -> None:
        """The registers were reset."""
        self.enabled = False

    def close(self) -> None:
        """Give the backend's sources back."""
        for vector in self._vectors:
            vector.close()

    def _allocated(self) -> int:
        """How many vectors software lets the function use, a power of two."""
        return min(1 << (self._config.get(self._at + CONTROL, 2) >> ALLOCATED_SHIFT & 7), len(self._vectors))

    def _pending(self) -> int:
        return self._config.get(self._at + PENDING, 4)

    def _put_pending(self, bits: int) -> None:
        self._config.put(self._at + PENDING, 4, bits)

    def _send(self, vector: int) -> None:
        config, at = self._config, self._at
        address = config.get(at + ADDRESS, 4) | config.get(at + ADDRESS_HIGH, 4) << 32
        data = config.get(at + DATA, 2) & -self._allocated()
        self._vectors[vector].set(address, data | vector)
        self._vectors[vector].send()
