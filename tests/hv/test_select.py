"""Which backend `auto` takes, why, and what may be demanded of it."""

from types import SimpleNamespace

import pytest

from pyhv.errors import CapabilityMissing, ConfigError, KvmUnavailable, SimUnavailable
from pyhv.hv import kvm, select
from pyhv.hv.kvm import KvmReport


def report(*, hardware: str = "", problem: str = "") -> KvmReport:
    return KvmReport(True, not problem, 12, "AuthenticAMD", hardware, "kvm_amd", {}, problem)


@pytest.fixture(autouse=True)
def host(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A host to be told what it is: `report`, `works` (the self-test passes), `built` (the simulator is)."""
    here = SimpleNamespace(report=report(), works=True, built=True, tested=False)

    def self_test() -> None:
        here.tested = True
        if not here.works:
            raise KvmUnavailable("its self-test failed")

    def sim(reason: str) -> select.Selection:
        if not here.built:
            raise SimUnavailable("not built")
        return select.Selection("sim", reason, SimpleNamespace())

    monkeypatch.setattr(select, "_chosen", {})
    monkeypatch.setattr(select, "_kvm", lambda reason: select.Selection("kvm", reason, SimpleNamespace()))
    monkeypatch.setattr(select, "_sim", sim)
    monkeypatch.setattr(kvm, "probe", lambda: here.report)
    monkeypatch.setattr(kvm, "self_test", self_test, raising=False)
    return here


@pytest.mark.parametrize("hardware", ["SVM", "VMX"])
def test_kvm_on_a_processor_with_virtualisation(host: SimpleNamespace, hardware: str) -> None:
    host.report = report(hardware=hardware)
    chosen = select.select()
    assert chosen.name == "kvm"
    assert hardware in chosen.reason
    assert host.tested


def test_the_simulator_without_a_device(host: SimpleNamespace) -> None:
    host.report = report(hardware="SVM", problem="there is no /dev/kvm")
    chosen = select.select()
    assert (chosen.name, chosen.reason) == ("sim", "no KVM: there is no /dev/kvm")


def test_the_simulator_where_kvm_does_not_run_code(host: SimpleNamespace) -> None:
    host.report, host.works = report(hardware="SVM"), False
    chosen = select.select()
    assert (chosen.name, chosen.reason) == ("sim", "no KVM: its self-test failed")


def test_the_simulator_where_the_processor_shows_nothing(host: SimpleNamespace) -> None:
    chosen = select.select()
    assert chosen.name == "sim"
    assert "neither SVM nor VMX" in chosen.reason
    assert not host.tested


def test_any_kvm_where_the_simulator_is_not_built(host: SimpleNamespace) -> None:
    host.built = False
    chosen = select.select()
    assert chosen.name == "kvm"
    assert "not built" in chosen.reason
    assert host.tested


def test_nothing_is_an_error(host: SimpleNamespace) -> None:
    host.built = host.works = False
    with pytest.raises(SimUnavailable):
        select.select()


def test_a_choice_is_made_once(host: SimpleNamespace) -> None:
    first = select.select()
    host.report = report(hardware="SVM")
    assert select.select() is first


def test_what_is_demanded_must_be_there(host: SimpleNamespace) -> None:
    with pytest.raises(CapabilityMissing, match="require: kvm"):
        select.select("sim", ["kvm"])
    with pytest.raises(CapabilityMissing, match="neither SVM nor VMX"):
        select.select("kvm", ["amd-v"])
    host.report = report(hardware="SVM")
    assert select.select("kvm", ["kvm", "amd-v"]).name == "kvm"
    with pytest.raises(ConfigError, match="require"):
        select.select("kvm", ["sev"])
    with pytest.raises(ConfigError, match="backend"):
        select.select("xen")
