"""An entropy device, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.peripherals.checks import between, check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from typing import ClassVar

    from pyhv.device import Device


@record(frozen=True)
class Entropy:
    """Random bytes for the guest (Linux: /dev/hwrng). `rate` bytes are given in each `period` milliseconds; 0: no limit.

    Raises ConfigError.
    """

    kind: ClassVar[str] = "entropy"

    rate: int = 0
    period: int = 1000
    transport: str = "pci"

    def __post_init__(self) -> None:
        check_fields(self)
        between("entropy", "rate", self.rate, 0, 1 << 40, "bytes")
        between("entropy", "period", self.period, 1, 3_600_000, "milliseconds")

    def build(self) -> Device:
        """The device."""
        from pyhv.virtio.entropy import VirtioEntropy

        return VirtioEntropy(rate=self.rate, period_ns=self.period * 1_000_000, transport=self.transport)
