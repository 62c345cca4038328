"""Why there is no KVM, and what mends it."""

import errno
import os
from pathlib import Path

import pytest

from pyhv.errors import KvmUnavailable
from pyhv.hv.kvm import host, probe


def test_the_report_of_this_host_is_consistent() -> None:
    report = probe()
    assert report.openable == (not report.problem)
    assert report.hardware in ("SVM", "VMX", "")
    if report.openable:
        assert report.present and report.api_version == 12


def test_a_missing_device_names_the_module_to_load(tmp_path: Path) -> None:
    device = str(tmp_path / "kvm")
    with pytest.raises(KvmUnavailable, match="there is no"):
        host.open_device(device)
    report = host.probe(device)
    assert not report.present and not report.openable and report.problem
    assert "modprobe kvm_amd" in host.explain(errno.ENOENT, "AuthenticAMD", "SVM")
    assert "modprobe kvm_intel" in host.explain(errno.ENOENT, "GenuineIntel", "VMX")
    assert "firmware" in host.explain(errno.ENOENT, "AuthenticAMD", "")


def test_no_permission_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(KvmUnavailable, match="usermod -aG kvm"):
        host.open_device()


def test_something_else_than_kvm_is_told(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.write_bytes(b"")
    with pytest.raises(KvmUnavailable, match="is not KVM"):
        host.open_device(str(device))


def test_another_api_version_is_told(tmp_path: Path) -> None:
    device = tmp_path / "kvm"
    device.write_bytes(b"")
    with pytest.raises(KvmUnavailable, match="version 10"):
        host.open_device(str(device), lambda fd: 10)


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ({}, ""),
        ({"kvm": {}}, ""),
        ({"kvm": {}, "kvm_amd": {"npt": "Y", "avic": "N"}}, "kvm_amd"),
        ({"kvm": {}, "kvm_pvm": {}}, "kvm_pvm"),
        ({"kvm": {}, "kvm_aaa": {}, "kvm_intel": {"ept": "Y"}}, "kvm_intel"),
    ],
)
def test_the_module_behind_kvm(tmp_path: Path, modules: dict[str, dict[str, str]], expected: str) -> None:
    for module, parameters in modules.items():
        directory = tmp_path / module / "parameters"
        directory.mkdir(parents=True)
        for name, value in parameters.items():
            (directory / name).write_text(value + "\n")
    module, parameters = host.loaded_module(str(tmp_path))
    assert module == expected
    assert parameters == modules.get(expected, {})


def test_flags_of_a_report() -> None:
    report = host.KvmReport(True, True, 12, "AuthenticAMD", "SVM", "kvm_amd", {"npt": "Y", "avic": "0", "sev": "1"})
    assert (report.flag("npt"), report.flag("avic"), report.flag("sev"), report.flag("x")) == (True, False, True, None)
