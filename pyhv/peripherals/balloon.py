"""A memory balloon, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import record
from pyhv.units import format_size, parse_size

if TYPE_CHECKING:
    from typing import ClassVar

    from pyhv.device import Device

PAGE = 4096


@record(frozen=True)
class Balloon:
    """Memory that the guest gives back while it runs: `size` bytes of it from the beginning (a number, or text as "64M").

    With `deflate_on_oom` the guest takes memory back before it kills a process for want of it; with `reporting` the host
    also gets what is free at the moment. `statistics`: milliseconds between two looks at the guest's statistics, 0 for none.
    Raises ConfigError.
    """

    kind: ClassVar[str] = "balloon"
    main: ClassVar[str] = "size"

    size: int = 0
    deflate_on_oom: bool = False
    reporting: bool = True
    statistics: int = 0
    transport: str = "pci"

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parse_size(self.size, "balloon: size"))
        check_fields(self)
        if self.size % PAGE or not 0 <= self.size < 1 << 44:
            raise ConfigError(f"balloon: size: '{format_size(self.size)}' is not a multiple of {PAGE} below 16T")
        between("balloon", "statistics", self.statistics, 0, 86_400_000, "milliseconds")

    def build(self) -> Device:
        """The device."""
        from pyhv.virtio.balloon import VirtioBalloon

        return VirtioBalloon(
            size=self.size,
            deflate_on_oom=self.deflate_on_oom,
            reporting=self.reporting,
            statistics_period_ns=self.statistics * 1_000_000,
            transport=self.transport,
        )
