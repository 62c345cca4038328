"""Which backend runs a machine, and why."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import CapabilityMissing, ConfigError, HostError, SimUnavailable
from pyhv.hv.names import BACKENDS, REQUIREMENTS
from pyhv.locks import allocate_lock
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyhv.hv.api import Hypervisor



@record(frozen=True)
class Selection:
    """A backend that was chosen; `reason` is one line for people."""

    name: str
    reason: str
    hypervisor: Hypervisor


_chosen: dict[str, Selection] = {}
_choosing = allocate_lock()


def select(backend: str = "auto", require: Iterable[str] = ()) -> Selection:
    """Choose a backend, once per process and name.

    `auto` takes KVM when /dev/kvm opens, passes its self-test and the CPU has SVM or VMX, else the simulator, else any
    KVM that passes its self-test. `require` may hold "kvm" and "amd-v": absence is then CapabilityMissing.
    Raises ConfigError for an unknown name, HostError when the backend cannot be had.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"backend: {backend!r} is not one of {', '.join(BACKENDS)}")
    selection = _chosen.get(backend)
    if selection is None:
        with _choosing:  # machines that start at once share one descriptor of /dev/kvm
            selection = _chosen.get(backend)
            if selection is None:
                selection = _chosen[backend] = _select(backend)
    for requirement in require:
        _demand(requirement, selection)
    return selection


def _select(backend: str) -> Selection:
    if backend == "kvm":
        return _kvm("asked for")
    if backend == "sim":
        return _sim("asked for")
    from pyhv.hv import kvm

    report = kvm.probe()
    if report.problem:
        return _sim(f"no KVM: {report.problem}")
    without = f"/dev/kvm opens ({report.module}), but the CPU shows neither SVM nor VMX"
    if not report.hardware:
        try:
            return _sim(without)
        except SimUnavailable:
            pass
    try:
        kvm.self_test()
    except HostError as error:
        return _sim(f"no KVM: {error}")
    if report.hardware:
        return _kvm(f"/dev/kvm works ({report.module}) and the CPU has {report.hardware}")
    return _kvm(f"{without}; it runs code, and the simulator is not built")


def _kvm(reason: str) -> Selection:
    from pyhv.hv.kvm import KvmHypervisor

    return Selection("kvm", reason, KvmHypervisor())


def _sim(reason: str) -> Selection:
    from pyhv.hv.sim import SimHypervisor

    return Selection("sim", reason, SimHypervisor())


def _demand(requirement: str, selection: Selection) -> None:
    if requirement not in REQUIREMENTS:
        raise ConfigError(f"require: {requirement!r} is not one of {', '.join(REQUIREMENTS)}")
    if selection.name != "kvm":
        raise CapabilityMissing(f"require: {requirement}: the backend is {selection.name} ({selection.reason})")
    if requirement == "amd-v":
        from pyhv.hv import kvm

        report = kvm.probe()
        if report.hardware != "SVM":
            raise CapabilityMissing(
                f"require: amd-v: /dev/kvm is {report.module}, and the CPU shows {report.hardware or 'neither SVM nor VMX'}"
            )
