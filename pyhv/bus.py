"""Address spaces: which device answers which port or guest physical address.

A device handler sees offsets into its own mapping and widths that it declared; the bus splits what is wider or straddles
two devices, the way an ISA bridge does. An address that nobody claims reads all ones, swallows writes, and is counted.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING, Protocol
from pyhv.errors import ConfigError
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Callable

QUICK_KEYS = 4096
"""How many addresses are remembered with their claims before all of them are looked up anew."""
UNCLAIMED_KEYS = 1024
"""How many distinct unclaimed addresses are remembered; what comes later is counted under the key -1."""


class IoHandler(Protocol):
    """What a mapping calls. `size` is 1, 2, 4 or 8 and at most the mapping's width; values are unsigned."""

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


@record(frozen=True)
class IoFunctions:
    """An IoHandler made of two functions, for a device with several mappings."""

    read: Callable[[int, int], int]
    write: Callable[[int, int, int], None]


@record(frozen=True)
class Mapping:
    """A device's claim on [base, base + length); `width` is the widest access, in bytes, that it takes whole."""

    base: int
    length: int
    handler: IoHandler
    name: str
    width: int

    @property
    def end(self) -> int:
        return self.base + self.length


class Deferred:
    """A device that is made when the guest first touches one of its ranges: most guests never touch most devices.

    `build` makes the device and maps what it claims. Ranges are registered by `AddressSpace.defer`.
    """

    __slots__ = ("_build", "built", "name")

    def __init__(self, name: str, build: Callable[[], None]) -> None:
        self.name = name
        self.built = False
        self._build = build

    def __call__(self) -> None:
        """Make the device, once."""
        if not self.built:
            self.built = True
            self._build()


class AddressSpace:
    """The ports (`limit` 0x10000) or the physical addresses that devices answer."""

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        self.unclaimed: dict[int, int] = {}
        self._deferred: list[tuple[int, int, Deferred]] = []
        self._mappings: list[Mapping] = []
        self._quick: dict[int, Mapping] = {}

    @property
    def mappings(self) -> tuple[Mapping, ...]:
        """All claims, by rising address."""
        return tuple(self._mappings)

    def map(self, base: int, length: int, handler: IoHandler, name: str, width: int = 4) -> Mapping:
        """Claim a range. Raises ConfigError when it is empty, outside the space, or overlaps another claim."""
        mapping = Mapping(base, length, handler, name, width)
        if length <= 0 or base < 0 or mapping.end > self.limit:
            raise ConfigError(f"{name}: [{base:#x}, {base + length:#x}) is outside the {self.name} space")
        obstacle = self.obstacle(base, length)
        if obstacle is not None:
            start, end, owner = obstacle
            raise ConfigError(
                f"{name}: {self.name} [{base:#x}, {mapping.end:#x}) overlaps {owner} [{start:#x}, {end:#x})"
            )
        self._mappings.append(mapping)
        self._mappings.sort(key=lambda claim: claim.base)
        return mapping

    def obstacle(self, base: int, length: int) -> tuple[int, int, str] | None:
        """A claim in a range, as its start, end and name, also that of a device that is not made yet; None if it is free."""
        end = base + length
        for start, stop, unit in self._deferred:
            if start < end and base < stop and not unit.built:
                return start, stop, unit.name
        for claim in self._mappings:
            if claim.base < end and base < claim.end:
                return claim.base, claim.end, claim.name
        return None

    def defer(self, base: int, length: int, unit: Deferred) -> None:
        """Reserve a range for a device that is made when it is first touched."""
        self._deferred.append((base, base + length, unit))

    def unmap(self, mapping: Mapping) -> None:
        """Give a claim back; unknown mappings are ignored."""
        self._mappings = [claim for claim in self._mappings if claim is not mapping]
        self._quick.clear()

    def find(self, address: int) -> Mapping | None:
        """The claim that holds this address; makes a deferred device that does."""
        mapping = self._quick.get(address) or self._look_up(address)
        if mapping is not None:
            return mapping
        for start, end, unit in self._deferred:
            if start <= address < end and not unit.built:
                unit()
                return self.find(address)
        return None

    def _look_up(self, address: int) -> Mapping | None:
        for mapping in self._mappings:
            if mapping.base <= address < mapping.base + mapping.length:
                if len(self._quick) >= QUICK_KEYS:
                    self._quick.clear()
                self._quick[address] = mapping
                return mapping
        return None

    def read(self, address: int, size: int) -> int:
        """Read `size` bytes (1 to 8) little-endian; never fails."""
        mapping = self._quick.get(address) or self._look_up(address)
        if mapping is not None:
            offset = address - mapping.base
            if offset + size <= mapping.length and size <= mapping.width and size & (size - 1) == 0:
                return mapping.handler.read(offset, size) & ((1 << (size << 3)) - 1)
        return self._read_split(address, size)

    def write(self, address: int, size: int, value: int) -> None:
        """Write `size` bytes (1 to 8) little-endian; never fails."""
        mapping = self._quick.get(address) or self._look_up(address)
        if mapping is not None:
            offset = address - mapping.base
            if offset + size <= mapping.length and size <= mapping.width and size & (size - 1) == 0:
                mapping.handler.write(offset, size, value)
                return
        self._write_split(address, size, value)

    def _pieces(self, address: int, size: int) -> list[tuple[Mapping | None, int, int]]:
        """Cut an access into pieces of one claim each, no wider than it takes; None where nobody answers."""
        pieces: list[tuple[Mapping | None, int, int]] = []
        end = address + size
        while address < end:
            mapping = self.find(address)
            if mapping is None:
                stop = self._gap_end(address, end)
                pieces.append((None, address, stop - address))
                address = stop
                continue
            length = mapping.width
            while length > end - address or length > mapping.end - address:
                length >>= 1
            pieces.append((mapping, address, length))
            address += length
        return pieces

    def _gap_end(self, address: int, end: int) -> int:
        """Where the next claim begins, at most `end`."""
        starts = [start for start, _, unit in self._deferred if start > address and not unit.built]
        starts += [mapping.base for mapping in self._mappings if mapping.base > address]
        return min([end, *starts])

    def _read_split(self, address: int, size: int) -> int:
        value = 0
        for mapping, start, length in self._pieces(address, size):
            mask = (1 << (length << 3)) - 1
            if mapping is None:
                self._miss(start)
                piece = mask
            else:
                piece = mapping.handler.read(start - mapping.base, length) & mask
            value |= piece << ((start - address) << 3)
        return value

    def _write_split(self, address: int, size: int, value: int) -> None:
        for mapping, start, length in self._pieces(address, size):
            if mapping is None:
                self._miss(start)
            else:
                piece = (value >> ((start - address) << 3)) & ((1 << (length << 3)) - 1)
                mapping.handler.write(start - mapping.base, length, piece)

    def _miss(self, address: int) -> None:
        counter = self.unclaimed
        if address not in counter and len(counter) >= UNCLAIMED_KEYS:
            address = -1
        counter[address] = counter.get(address, 0) + 1


def port_space() -> AddressSpace:
    """The 64 KiB of x86 I/O ports (accesses at the end may reach past it, as on hardware)."""
    return AddressSpace("port", 0x10000)


def mmio_space() -> AddressSpace:
    """The guest physical address space, 52 bits (APM vol. 2, 5.1)."""
    return AddressSpace("memory", 1 << 52)
