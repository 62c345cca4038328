"""pyhv: a hypervisor in Python.

    import pyhv
    result = pyhv.run(pyhv.Machine("vmlinuz", cmdline="console=ttyS0"), timeout=30)
    result.check()

Everything public is named here; what it stands on is imported when it is first used.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhv.device import Device, MmioDevice, MsrDevice, PioDevice, Platform
    from pyhv.errors import (
        BootError,
        CapabilityMissing,
        ConfigError,
        Divergence,
        GuestError,
        GuestFailed,
        GuestMemoryError,
        GuestPanic,
        HostError,
        KvmError,
        KvmUnavailable,
        PyhvError,
        SimUnavailable,
        SnapshotMismatch,
        TripleFault,
        VmmError,
        VmTimeout,
    )
    from pyhv.irq import InterruptLine, Msi
    from pyhv.machine import Machine
    from pyhv.result import Outcome, Result
    from pyhv.virtio.device import VirtioDevice
    from pyhv.vm import Vm, run, start

__version__ = "0.1.0"

_HOME = {
    "pyhv.device": ("Device", "MmioDevice", "MsrDevice", "PioDevice", "Platform"),
    "pyhv.errors": (
        "BootError",
        "CapabilityMissing",
        "ConfigError",
        "Divergence",
        "GuestError",
        "GuestFailed",
        "GuestMemoryError",
        "GuestPanic",
        "HostError",
        "KvmError",
        "KvmUnavailable",
        "PyhvError",
        "SimUnavailable",
        "SnapshotMismatch",
        "TripleFault",
        "VmTimeout",
        "VmmError",
    ),
    "pyhv.irq": ("InterruptLine", "Msi"),
    "pyhv.machine": ("Machine",),
    "pyhv.result": ("Outcome", "Result"),
    "pyhv.virtio.device": ("VirtioDevice",),
    "pyhv.vm": ("Vm", "run", "start"),
}
_WHERE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [  # noqa: RUF022 - the machine first, errors last
    "Machine",
    "Vm",
    "run",
    "start",
    "Result",
    "Outcome",
    "Device",
    "MmioDevice",
    "PioDevice",
    "MsrDevice",
    "VirtioDevice",
    "Platform",
    "InterruptLine",
    "Msi",
    "PyhvError",
    "HostError",
    "KvmUnavailable",
    "CapabilityMissing",
    "KvmError",
    "SimUnavailable",
    "ConfigError",
    "BootError",
    "GuestError",
    "GuestPanic",
    "TripleFault",
    "GuestFailed",
    "GuestMemoryError",
    "VmmError",
    "VmTimeout",
    "SnapshotMismatch",
    "Divergence",
    "__version__",
]


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'pyhv' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value
