"""The watchdog of Intel's 6300ESB I/O controller hub, a function on the PCI bus.

Source: Intel 6300ESB I/O Controller Hub data sheet (300641-004), chapter 16. A counter runs twice: at the end of its first
stage it can interrupt, at the end of the second it drives its output pin. Registers of the counter take one write after an
unlocking sequence. Linux drives it with i6300esb, and sets the first interrupt off.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.watchdog import Countdown, act, check_action
from pyhv.device import Device

if TYPE_CHECKING:
    from typing import Final

    from pyhv.device import Platform
    from pyhv.pci import PciFunction

VENDOR, DEVICE = 0x8086, 0x25AB
CLASS: Final = 0x08_8000

# Configuration space
WDT_CONFIG, WDT_LOCK = 0x60, 0x68
INT_TYPE, INT_TYPE_IRQ = 0x3, 0
PRESCALE_1MHZ: Final = 1 << 2
OUTPUT_DISABLED: Final = 1 << 5
LOCK, ENABLE, FREE_RUNNING = 1 << 0, 1 << 1, 1 << 2

# Memory space
PRELOAD_1, PRELOAD_2, INTERRUPT_STATUS, RELOAD = 0x00, 0x04, 0x08, 0x0C
BAR_SIZE: Final = 16
PRELOAD_MASK: Final = 0xF_FFFF
INT_ACTIVE: Final = 1
RELOAD_BIT, TIMEOUT = 1 << 8, 1 << 9
UNLOCK_1, UNLOCK_2 = 0x80, 0x86

CLOCK_HZ: Final = 33_000_000
SHIFT_1KHZ, SHIFT_1MHZ = 15, 5
"""Where the preload values go in the counter of 35 bits."""
SHORTEST_NS: Final = 100_000
"""Of a stage: a counter that is never late would keep the host busy."""


class I6300Esb(Device):
    """Off until the guest enables it; `action` (one of `pyhv.chipset.watchdog.ACTIONS`) is what its output pin does.

    That it fired outlives a reset. Raises ConfigError for an unknown action.
    """

    name = "i6300esb"

    def __init__(self, *, action: str = "panic") -> None:
        self.action = check_action(action)
        self.expired = False
        self._function: PciFunction
        self._countdown: Countdown
        self._clear()

    def _clear(self) -> None:
        self._preload = [PRELOAD_MASK, PRELOAD_MASK]
        self._stage = 1
        self._unlocked = 0
        self._interrupting = False
        self._lock = 0

    def attach(self, platform: Platform) -> None:
        from pyhv.pci import PciFunction

        super().attach(platform)
        self._clear()
        self._countdown = Countdown(platform.clock, self._expire)
        function = self._function = PciFunction(
            vendor=VENDOR, device=DEVICE, class_code=CLASS, interrupt_pin=1, name=self.label
        )
        function.config.define(WDT_CONFIG, 2, 0, INT_TYPE | PRESCALE_1MHZ | OUTPUT_DISABLED)
        function.config.define(WDT_LOCK, 1, 0, LOCK | ENABLE | FREE_RUNNING)
        function.config.on_write(WDT_LOCK, self._lock_written)
        function.add_bar(0, BAR_SIZE, self)
        platform.pci.add(function)

    def reset(self) -> None:
        self._countdown.stop()
        self._clear()
        self._function.config.put(WDT_CONFIG, 2, 0)
        self._function.config.put(WDT_LOCK, 1, 0)
        self._function.interrupt(False)

    def close(self) -> None:
        if hasattr(self, "_function"):
            self._function.close()

    # Registers

    def _lock_written(self) -> None:
        config = self._function.config
        if self._lock & LOCK:
            config.put(WDT_LOCK, 1, self._lock)
            return
        before, self._lock = self._lock, config.get(WDT_LOCK, 1)
        if not self._lock & ENABLE:
            self._countdown.stop()
        elif not before & ENABLE:
            self._start(1)

    def read(self, offset: int, size: int) -> int:
        """A register of the counter, or a part of one."""
        register = offset & ~3
        if register == RELOAD:
            value = TIMEOUT if self.expired else 0
        elif register == INTERRUPT_STATUS:
            value = INT_ACTIVE if self._interrupting else 0
        else:
            value = self._preload[register // 4]
        return value >> (offset & 3) * 8

    def write(self, offset: int, size: int, value: int) -> None:
        """A register of the counter, or a part of one."""
        if offset == RELOAD and value == UNLOCK_1:
            self._unlocked = 1
            return
        if offset == RELOAD and value == UNLOCK_2 and self._unlocked == 1:
            self._unlocked = 2
            return
        shift = (offset & 3) * 8
        written, mask = value << shift, (1 << size * 8) - 1 << shift
        register = offset & ~3
        if register == INTERRUPT_STATUS:
            if written & INT_ACTIVE:
                self._interrupt(False)
            return
        unlocked, self._unlocked = self._unlocked == 2, 0
        if not unlocked:
            return
        if register != RELOAD:
            kept = self._preload[register // 4] & ~mask
            self._preload[register // 4] = (kept | written & mask) & PRELOAD_MASK
            return
        if written & TIMEOUT:
            self.expired = False
        if written & RELOAD_BIT and self._lock & ENABLE:
            self._start(1)

    # The counter

    def _start(self, stage: int) -> None:
        self._stage = stage
        fast = self._function.config.get(WDT_CONFIG, 2) & PRESCALE_1MHZ
        count = max(self._preload[stage - 1], 1) << (SHIFT_1MHZ if fast else SHIFT_1KHZ)
        self._countdown.start(max(count * 1_000_000_000 // CLOCK_HZ, SHORTEST_NS))

    def _interrupt(self, asserted: bool) -> None:
        self._interrupting = asserted
        self._function.interrupt(asserted)

    def _expire(self) -> None:
        config = self._function.config.get(WDT_CONFIG, 2)
        if self._stage == 1:
            if config & INT_TYPE == INT_TYPE_IRQ:
                self._interrupt(True)
            self._start(2)
            return
        self.expired = True
        if self._lock & FREE_RUNNING:
            self._start(1)
        if not config & OUTPUT_DISABLED:
            act(self.action, self.platform.control, self.label)
