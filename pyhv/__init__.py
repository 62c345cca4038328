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
    from pyhv.linux.command import run_command
    from pyhv.linux.result import CommandResult
    from pyhv.machine import Machine
    from pyhv.peripherals.balloon import Balloon
    from pyhv.peripherals.console import Console
    from pyhv.peripherals.disk import Disk
    from pyhv.peripherals.entropy import Entropy
    from pyhv.peripherals.net import Net
    from pyhv.peripherals.pmem import Pmem
    from pyhv.peripherals.share import Share
    from pyhv.peripherals.vsock import Vsock
    from pyhv.peripherals.watchdog import Watchdog
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
    "pyhv.linux.command": ("run_command",),
    "pyhv.linux.result": ("CommandResult",),
    "pyhv.peripherals.balloon": ("Balloon",),
    "pyhv.peripherals.console": ("Console",),
    "pyhv.peripherals.disk": ("Disk",),
    "pyhv.peripherals.entropy": ("Entropy",),
    "pyhv.peripherals.net": ("Net",),
    "pyhv.peripherals.pmem": ("Pmem",),
    "pyhv.peripherals.share": ("Share",),
    "pyhv.peripherals.vsock": ("Vsock",),
    "pyhv.peripherals.watchdog": ("Watchdog",),
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
    "run_command",
    "CommandResult",
    "Balloon",
    "Console",
    "Disk",
    "Entropy",
    "Net",
    "Pmem",
    "Share",
    "Vsock",
    "Watchdog",
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
