"""The compiled part, behind one door: `ffi` and `lib` of `pyhv.hv.kvm._kvm`, and requests that raise typed errors."""

from __future__ import annotations

import errno

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, KvmError, KvmUnavailable

if TYPE_CHECKING:
    from typing import Any

try:
    from pyhv.hv.kvm._kvm import ffi as _ffi  # type: ignore[import-not-found]
    from pyhv.hv.kvm._kvm import lib as _lib
except ImportError as error:
    raise KvmUnavailable(f"pyhv.hv.kvm._kvm is not built ({error}); mend it with: pip install -e .") from error

ffi: Any = _ffi
lib: Any = _lib

KICK_SIGNAL_OFFSET = 5
"""Kicks use SIGRTMIN plus this."""

_ioctl = lib.pyhv_ioctl
_ioctl_value = lib.pyhv_ioctl_value


def _failure(name: str, code: int) -> Exception:
    if code == errno.ENOTTY:
        return CapabilityMissing(f"this host's KVM has no {name}")
    return KvmError(name, code)


def request(fd: int, name: str, argument: Any = ffi.NULL) -> int:
    """An ioctl by its name in abi.h, with a pointer. Raises KvmError, CapabilityMissing where KVM lacks it."""
    result: int = _ioctl(fd, getattr(lib, name), argument)
    if result < 0:
        raise _failure(name, -result)
    return result


def request_value(fd: int, name: str, argument: int = 0) -> int:
    """An ioctl by its name in abi.h, with a number. Raises KvmError, CapabilityMissing where KVM lacks it."""
    result: int = _ioctl_value(fd, getattr(lib, name), argument)
    if result < 0:
        raise _failure(name, -result)
    return result


def setup_kick_signal() -> int:
    """Install the kick signal's handler; the signal's number."""
    number: int = lib.pyhv_setup_kick_signal(KICK_SIGNAL_OFFSET)
    if number < 0:
        raise KvmError("sigaction", -number)
    return number
