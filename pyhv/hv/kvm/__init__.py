"""The backend over /dev/kvm. What needs the compiled part is imported when it is first used."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.kvm.host import KvmReport, probe

if TYPE_CHECKING:
    from pyhv.hv.kvm.hypervisor import KvmHypervisor
    from pyhv.hv.kvm.selftest import self_test

__all__ = ["KvmHypervisor", "KvmReport", "probe", "self_test"]


def __getattr__(name: str) -> object:
    if name == "KvmHypervisor":
        from pyhv.hv.kvm.hypervisor import KvmHypervisor

        return KvmHypervisor
    if name == "self_test":
        from pyhv.hv.kvm.selftest import self_test

        return self_test
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
