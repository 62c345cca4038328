"""A watchdog that ACPI describes: the WDAT table and the registers that it tells of.

Source: Microsoft's Hardware Watchdog Timers Design Specification, which ACPI names for WDAT; Linux drives it with wdat_wdt.
An operating system knows no register of it: the table lists, for each action, which register to read or write and how.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.watchdog import Countdown, act, check_action
from pyhv.device import Device

if TYPE_CHECKING:
    from typing import Final

    from pyhv.device import Platform

WATCHDOG_PORT: Final = 0x660
"""Where ICH9, which QEMU's q35 has, keeps its own."""
WATCHDOG_SIZE: Final = 16
CONTROL, STATUS, COUNTDOWN, CURRENT = 0, 4, 8, 12
"""Registers of 32 bits: bit 0 runs it; bit 0 tells that it expired, and a one clears it; the periods that a start and a
reload count; the periods that are left, where any write is a reload."""

RUN, EXPIRED = 1, 1
PERIOD_MS: Final = 100
MIN_COUNT, MAX_COUNT = 1, 0xFFFF
DEFAULT_COUNT: Final = 300
"""30 seconds."""
_PERIOD_NS: Final = PERIOD_MS * 1_000_000

# Actions
RESET, QUERY_CURRENT, QUERY_COUNTDOWN, SET_COUNTDOWN = 0x01, 0x04, 0x05, 0x06
QUERY_RUNNING, SET_RUNNING, QUERY_STOPPED, SET_STOPPED = 0x08, 0x09, 0x0A, 0x0B
QUERY_STATUS, SET_STATUS = 0x20, 0x21
# Instructions
READ_VALUE, READ_COUNTDOWN, WRITE_VALUE, WRITE_COUNTDOWN = 0, 1, 2, 3
PRESERVE: Final = 0x80
"""The bits outside the mask are read and written back."""
# Flags
ENABLED, STOPPED_IN_SLEEP = 0x01, 0x80

NO_PCI: Final = 0xFF
_HEADER_LENGTH: Final = 32
_IO_SPACE, _DWORD = 1, 3
_LOW: Final = 0xFFFF

_ENTRIES: Final = (
    (RESET, WRITE_VALUE, CURRENT, 1, 1),
    (QUERY_CURRENT, READ_COUNTDOWN, CURRENT, 0, _LOW),
    (QUERY_COUNTDOWN, READ_COUNTDOWN, COUNTDOWN, 0, _LOW),
    (SET_COUNTDOWN, WRITE_COUNTDOWN, COUNTDOWN, 0, _LOW),
    (QUERY_RUNNING, READ_VALUE, CONTROL, RUN, RUN),
    (SET_RUNNING, WRITE_VALUE | PRESERVE, CONTROL, RUN, RUN),
    (QUERY_STOPPED, READ_VALUE, CONTROL, 0, RUN),
    (SET_STOPPED, WRITE_VALUE | PRESERVE, CONTROL, 0, RUN),
    (QUERY_STATUS, READ_VALUE, STATUS, EXPIRED, EXPIRED),
    (SET_STATUS, WRITE_VALUE, STATUS, EXPIRED, EXPIRED),
)
"""Action, instruction, register, value, mask."""


def table_body(port: int) -> bytes:
    """WDAT without its common header, for registers at `port`."""
    header = struct.pack(
        "<IHBBB3xIIIB3xI",
        _HEADER_LENGTH,
        NO_PCI,
        NO_PCI,
        NO_PCI,
        NO_PCI,
        PERIOD_MS,
        MAX_COUNT,
        MIN_COUNT,
        ENABLED | STOPPED_IN_SLEEP,
        len(_ENTRIES),
    )
    return header + b"".join(
        struct.pack("<BBxxBBBBQII", action, instruction, _IO_SPACE, 32, 0, _DWORD, port + register, value, mask)
        for action, instruction, register, value, mask in _ENTRIES
    )


class WdatWatchdog(Device):
    """Off until the guest starts it; `action` (one of `pyhv.chipset.watchdog.ACTIONS`) is done when it runs out.

    It then stands still until it is started again. That it expired outlives a reset, so that the guest can learn why it was
    reset. Raises ConfigError for an unknown action.
    """

    name = "wdat watchdog"

    def __init__(self, *, action: str = "panic", port: int = WATCHDOG_PORT) -> None:
        self.action = check_action(action)
        self.port = port
        self.expired = False
        self._written = DEFAULT_COUNT
        self._countdown: Countdown

    def attach(self, platform: Platform) -> None:
        super().attach(platform)
        self._written = DEFAULT_COUNT
        self._countdown = Countdown(platform.clock, self._expire)
        platform.ports.map(self.port, WATCHDOG_SIZE, self, self.label, 4)
        platform.add_acpi_table(b"WDAT", 1, table_body(self.port))

    def reset(self) -> None:
        self._countdown.stop()
        self._written = DEFAULT_COUNT

    @property
    def count(self) -> int:
        """The periods that a start and a reload count."""
        return min(max(self._written, MIN_COUNT), MAX_COUNT)

    def read(self, offset: int, size: int) -> int:
        """A register, or a part of one."""
        register, shift = offset & ~3, (offset & 3) * 8
        return self._value(register) >> shift

    def _value(self, register: int) -> int:
        if register == CONTROL:
            return RUN if self._countdown.running else 0
        if register == STATUS:
            return EXPIRED if self.expired else 0
        if register == COUNTDOWN or not self._countdown.running:
            return self.count
        return -(-self._countdown.remaining_ns // _PERIOD_NS)

    def write(self, offset: int, size: int, value: int) -> None:
        """A register, or a part of one: the rest of it keeps its value."""
        register, shift = offset & ~3, (offset & 3) * 8
        mask = (1 << size * 8) - 1 << shift
        written = value << shift & mask
        if register == STATUS:
            if written & EXPIRED:
                self.expired = False
        elif register == CURRENT:
            if self._countdown.running:
                self._start()
        elif register == COUNTDOWN:
            self._written = self._written & ~mask | written
        elif mask & RUN:
            if not written & RUN:
                self._countdown.stop()
            elif not self._countdown.running:
                self._start()

    def _start(self) -> None:
        self._countdown.start(self.count * _PERIOD_NS)

    def _expire(self) -> None:
        self.expired = True
        act(self.action, self.platform.control, "wdat")
