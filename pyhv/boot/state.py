"""What a loader leaves behind: the registers that the boot processor starts with, and what it put where."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.record import field, record

if TYPE_CHECKING:
    from pyhv.boot.offer import Offer
    from pyhv.x86.registers import GeneralRegisters, SystemRegisters


@record
class BootState:
    """`offer` is what firmware finds in fw_cfg, where firmware starts the machine."""

    format: str
    general: GeneralRegisters
    system: SystemRegisters
    entry: int
    image: tuple[int, int]
    notes: dict[str, int] = field(default_factory=dict)
    offer: Offer | None = None
