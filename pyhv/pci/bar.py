"""Base address registers (PCI 3.0, 6.2.5): where software places a function's ranges."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.enums import Enum
from pyhv.pci.registers import BAR_0, BAR_IO, BAR_MEMORY_64, BAR_PREFETCHABLE, COMMAND_IO, COMMAND_MEMORY

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.bus import IoHandler, Mapping
    from pyhv.pci.config import ConfigSpace


class BarKind(Enum):
    """What a range is, and how wide the register is that holds its address."""

    MEMORY32 = "memory32"
    MEMORY64 = "memory64"
    IO = "io"


class Bar:
    """One range of a function: `index` is its register, the first of two for MEMORY64.

    `moved(address)` is called when the range answers at another address than before; with None when it answers nowhere:
    decoding is switched off, or something with a better claim is there.
    """

    __slots__ = (
        "_config",
        "address",
        "handler",
        "index",
        "kind",
        "mapping",
        "moved",
        "name",
        "size",
        "width",
    )

    def __init__(
        self,
        config: ConfigSpace,
        index: int,
        size: int,
        handler: IoHandler,
        *,
        kind: BarKind,
        prefetchable: bool,
        width: int,
        moved: Callable[[int | None], None],
        name: str,
    ) -> None:
        self._config = config
        self.index = index
        self.size = size
        self.handler = handler
        self.kind = kind
        self.width = width
        self.moved = moved
        self.name = name
        self.address: int | None = None
        """Where software wants it; None while its decoding is off."""
        self.mapping: Mapping | None = None
        """The claim by which it answers, if it does."""
        flags = BAR_IO if self.is_io else BAR_PREFETCHABLE if prefetchable else 0
        if self.is_wide:
            flags |= BAR_MEMORY_64
            config.define(self._register + 4, 4, 0, -size >> 32 & 0xFFFF_FFFF)
        config.define(self._register, 4, flags, -size & 0xFFFF_FFFF)

    @property
    def is_io(self) -> bool:
        """Whether it is a range of ports."""
        return self.kind is BarKind.IO

    @property
    def is_wide(self) -> bool:
        """Whether its address has 64 bits."""
        return self.kind is BarKind.MEMORY64

    @property
    def _register(self) -> int:
        return BAR_0 + 4 * self.index

    def decoded(self, command: int) -> int | None:
        """The address in the register, None while `command` switches its space off."""
        if not command & (COMMAND_IO if self.is_io else COMMAND_MEMORY):
            return None
        low = self._config.get(self._register, 4) & (~0x3 if self.is_io else ~0xF)
        return low | self._config.get(self._register + 4, 4) << 32 if self.is_wide else low

    def place(self, address: int) -> None:
        """Write the register as firmware would."""
        self._config.write(self._register, 4, address & 0xFFFF_FFFF)
        if self.is_wide:
            self._config.write(self._register + 4, 4, address >> 32)
