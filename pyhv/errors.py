"""Every error that pyhv raises on purpose.

    PyhvError
    ├── HostError                  the host cannot do it
    │   ├── KvmUnavailable         no usable /dev/kvm
    │   ├── CapabilityMissing      the host works, but lacks a feature that was asked for
    │   ├── KvmError               an ioctl failed (carries its name and errno)
    │   └── SimUnavailable         the simulator was not built
    ├── ConfigError                the user's mistake: an option, a file, a machine description
    │   └── BootError              an image that cannot be booted
    ├── GuestError                 the guest's own failure (carries the Result)
    │   ├── GuestPanic             it panicked
    │   ├── TripleFault            it shut its processor down
    │   └── GuestFailed            it reported a status other than 0, or ended in another way than asked
    ├── GuestMemoryError           an access outside the guest's memory
    ├── VmmError                   the VMM itself failed, or met an exit that it cannot handle
    ├── VmTimeout                  the guest did not end in time (carries the Result)
    ├── SnapshotMismatch           a snapshot does not fit this machine
    └── Divergence                 two runs that should be alike are not
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhv.result import Result


class PyhvError(Exception):
    """The root of the tree."""


class HostError(PyhvError):
    """The host cannot do what was asked."""


class KvmUnavailable(HostError):
    """There is no usable /dev/kvm; the message says why and what mends it."""


class CapabilityMissing(HostError):
    """The host lacks a feature that was demanded."""


class KvmError(HostError):
    """An ioctl failed in a way that is not part of normal operation."""

    def __init__(self, ioctl: str, errno: int, detail: str = "") -> None:
        import os

        self.ioctl = ioctl
        self.errno = errno
        self.detail = detail
        super().__init__(f"{ioctl}: {os.strerror(errno)} (errno {errno})" + (f": {detail}" if detail else ""))

    def __reduce__(self) -> tuple[type[KvmError], tuple[str, int, str]]:
        return type(self), (self.ioctl, self.errno, self.detail)


class SimUnavailable(HostError):
    """The simulated machine is not built into this installation."""


class ConfigError(PyhvError):
    """The user's mistake, in one line."""


class BootError(ConfigError):
    """An image that is malformed, too large, or not of the format it was said to be."""


class _WithResult(PyhvError):
    """An error about a run; `result` tells how it ended."""

    def __init__(self, message: str, result: Result | None = None) -> None:
        super().__init__(message)
        self.result = result


class GuestError(_WithResult):
    """The guest's own failure."""


class GuestPanic(GuestError):
    """The guest panicked."""


class TripleFault(GuestError):
    """The guest's processor shut down."""


class GuestFailed(GuestError):
    """The guest reported failure, or ended where it should have gone on."""


class GuestMemoryError(PyhvError):
    """An access to guest physical memory that is not (wholly) there."""

    def __init__(self, address: int, length: int) -> None:
        self.address = address
        self.length = length
        super().__init__(f"guest physical [{address:#x}, {address + length:#x}) is not memory")

    def __reduce__(self) -> tuple[type[GuestMemoryError], tuple[int, int]]:
        return type(self), (self.address, self.length)


class VmmError(_WithResult):
    """The VMM failed: an unknown exit, an emulation failure, a bug."""


class VmTimeout(_WithResult):
    """Time ran out."""


class SnapshotMismatch(PyhvError):
    """A snapshot that does not fit."""


class Divergence(PyhvError):
    """Two runs that should be alike differ."""
