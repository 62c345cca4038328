"""What a device raises when its driver broke the protocol."""

from __future__ import annotations

from pyhv.errors import PyhvError


class VirtioError(PyhvError):
    """The driver did what the specification forbids.

    Raised out of a device's handler it makes the device fail (DEVICE_NEEDS_RESET); it never ends the machine.
    """
