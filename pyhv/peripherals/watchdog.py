"""A watchdog, as a machine's description says it."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError
from pyhv.peripherals.checks import check_fields
from pyhv.record import record

if TYPE_CHECKING:
    from typing import ClassVar

    from pyhv.device import Device

MODELS = ("wdat", "i6300esb")


@record(frozen=True)
class Watchdog:
    """Ends or resets a machine whose guest gave no sign of life in time, once the guest has started it.

    `model`: "wdat" is described by an ACPI table (Linux: wdat_wdt), "i6300esb" is Intel's on the PCI bus, which QEMU's users
    know. `action`: "panic", "reset", "poweroff" or "nothing". With "panic" a guest that hangs fails the run; a reset and a
    power-off are as the guest's own, and those pass. Raises ConfigError.
    """

    kind: ClassVar[str] = "watchdog"
    main: ClassVar[str] = "model"
    unique: ClassVar[tuple[str, ...]] = ("model",)

    model: str = "wdat"
    action: str = "panic"

    def __post_init__(self) -> None:
        from pyhv.chipset.watchdog import check_action

        check_fields(self)
        if self.model not in MODELS:
            raise ConfigError(f"watchdog: model: {self.model!r} is not one of {', '.join(MODELS)}")
        check_action(self.action)

    def build(self) -> Device:
        """The device."""
        if self.model == "i6300esb":
            from pyhv.chipset.i6300esb import I6300Esb

            return I6300Esb(action=self.action)
        from pyhv.chipset.wdat import WdatWatchdog

        return WdatWatchdog(action=self.action)
