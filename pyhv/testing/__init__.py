"""For the tests of pyhv's users: doubles that a device of their own can be driven with, without any virtual machine.

The pytest plugin (`@pytest.mark.vm`, the fixtures `vm` and `vm_factory`) is `pyhv.testing.plugin`; pytest finds it by itself.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhv.clock import ManualClock
    from pyhv.testing.bench import DeviceBench
    from pyhv.testing.doubles import ManualEvents, RecordingControl, RecordingLine, guest_memory

_WHERE = {
    "DeviceBench": "pyhv.testing.bench",
    "ManualClock": "pyhv.clock",
    "ManualEvents": "pyhv.testing.doubles",
    "RecordingControl": "pyhv.testing.doubles",
    "RecordingLine": "pyhv.testing.doubles",
    "guest_memory": "pyhv.testing.doubles",
}

__all__ = ["DeviceBench", "ManualClock", "ManualEvents", "RecordingControl", "RecordingLine", "guest_memory"]


def __getattr__(name: str) -> object:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'pyhv.testing' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(module), name)
