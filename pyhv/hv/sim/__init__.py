"""The simulated AMD-V machine: the silicon is C (silicon/), the hypervisor on it is Python.

`SimHypervisor` is imported when it is first used; SimUnavailable says where the silicon was not built.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhv.hv.sim.hypervisor import SimHypervisor

__all__ = ["SimHypervisor"]


def __getattr__(name: str) -> object:
    if name == "SimHypervisor":
        from pyhv.hv.sim.hypervisor import SimHypervisor

        return SimHypervisor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
