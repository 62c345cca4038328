"""The device and its permissions, hugepages, and the report as a whole."""

import json
import os
import tempfile
from pathlib import Path

import pytest
from doctor_hosts import ALL_ON, HostFiles
from hypothesis import given
from hypothesis import strategies as st

from pyhv import doctor
from pyhv.doctor import NO, UNKNOWN, YES, Host, hugepages, kvm
from pyhv.errors import KvmUnavailable, SimUnavailable
from pyhv.hv.select import Selection

SETTINGS = [
    "/proc/cpuinfo",
    "/proc/sys/kernel/osrelease",
    "/etc/group",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages",
    "/sys/module/kvm_amd/parameters/npt",
    "/sys/module/kvm_amd/parameters/avic",
]


@pytest.fixture
def files(tmp_path):
    return HostFiles(tmp_path)


class Closed(Host):
    """A host whose devices the user may not open; tests run as root, whom permissions do not stop."""

    def accessible(self, path):
        return False

    def group(self, path):
        return self.device_group

    device_group = "kvm"


def closed(files, group="kvm"):
    host = Closed(str(files.root), user="ada", root_user=False, kvm_check=lambda: None)
    host.device_group = group
    return host


def test_it_works(files):
    files.cpu().kvm()
    assert kvm.device(files.host()).state == YES
    assert kvm.permissions(files.host()).state == YES


def test_module_missing(files):
    files.cpu()
    assert kvm.device(files.host()).fix == "sudo modprobe kvm_amd"
    files.cpu("GenuineIntel", "vmx")
    assert kvm.device(files.host()).fix == "sudo modprobe kvm_intel"


def test_no_virtualisation_at_all(files):
    files.cpu(flags="fpu")
    assert "firmware setup" in kvm.device(files.host()).fix
    files.cpu(flags="fpu hypervisor")
    assert "-cpu host" in kvm.device(files.host()).fix


def test_no_permission_names_the_group(files):
    files.cpu().kvm()
    for finding in (kvm.device(closed(files)), kvm.permissions(closed(files))):
        assert finding.state == NO
        assert finding.fix == "sudo usermod -aG kvm ada, then log in again"


def test_a_group_that_the_login_does_not_have_yet(files):
    files.cpu().kvm().write("/etc/group", "root:x:0:\nkvm:x:104:bob,ada")
    assert "newgrp kvm" in kvm.permissions(closed(files)).fix


def test_a_device_of_root_needs_a_udev_rule(files):
    files.cpu().kvm()
    fix = kvm.permissions(closed(files, "root")).fix
    assert "udev" in fix and 'KERNEL=="kvm"' in fix


def test_a_failing_self_test_is_the_reason(files):
    def broken():
        raise KvmUnavailable("no code runs")

    files.cpu().kvm()
    finding = kvm.device(files.host(check=broken))
    assert (finding.state, finding.reason) == (NO, "no code runs")


def pool(files, total, free, reserved=0, kib=2048):
    where = f"/sys/kernel/mm/hugepages/hugepages-{kib}kB"
    for name, value in (("nr", total), ("free", free), ("resv", reserved)):
        files.write(f"{where}/{name}_hugepages", str(value))


def test_hugepages_none_reserved(files):
    pool(files, 0, 0)
    finding = hugepages.reserved(files.host(), "2M")
    assert (finding.state, finding.fix) == (
        NO,
        "echo 128 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
    )


def test_hugepages_promised_to_others_are_not_free(files):
    pool(files, 200, 8, 8)
    finding = hugepages.reserved(files.host(root_user=True), "2M")
    assert (finding.state, finding.fix) == (NO, "echo 328 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    pool(files, 200, 9, 8)
    assert hugepages.reserved(files.host(), "2M").state == YES


def test_one_gib_pages_need_the_cpu(files):
    files.cpu(flags="fpu")
    assert "CPU has no 1 GiB" in hugepages.reserved(files.host(), "1G").reason
    pool(files, 1, 1, kib=1 << 20)
    assert hugepages.reserved(files.host(), "1G").state == YES


def test_nonsense_in_a_setting_is_unknown(files):
    pool(files, "banana", 1)
    assert hugepages.reserved(files.host(), "2M").state == UNKNOWN


@pytest.mark.parametrize(
    ("shared", "anonymous", "state"),
    [
        ("never", "madvise", YES),
        ("advise", "never", YES),
        ("never", "never", NO),
        (None, None, NO),
        (None, "always", YES),
    ],
)
def test_transparent(files, shared, anonymous, state):
    for name, value in (("shmem_enabled", shared), ("enabled", anonymous)):
        if value:
            files.write(f"/sys/kernel/mm/transparent_hugepage/{name}", f"other [{value}] another")
    assert hugepages.transparent(files.host()).state == state


def test_the_report_holds_everything(files):
    files.cpu().kvm(**ALL_ON)
    report = doctor.examine(files.host(), lambda: Selection("kvm", "because", None))
    names = [finding.name for finding in report.findings]
    for name in ("KVM", "permissions", "SVM", "NPT", "AVIC", "x2AVIC", "SEV", "SEV-ES", "SEV-SNP", "simulator"):
        assert name in names
    assert {f"hugepages {kind}" for kind in ("2M", "1G", "transparent")} <= set(names)
    assert report.ok and report["KVM"].state == YES
    document = json.loads(json.dumps(report.to_dict()))
    assert document["backend"] == "kvm" and len(document["findings"]) == len(names)
    assert all(set(finding) == {"name", "state", "reason", "fix"} for finding in document["findings"])


def test_an_empty_host_is_examined_too(files):
    def none():
        raise SimUnavailable("nothing here")

    report = doctor.examine(files.host(), none)
    assert not report.ok and report.backend_reason == "nothing here"
    assert all(finding.reason and finding.state in doctor.STATES for finding in report.findings)


@given(st.dictionaries(st.sampled_from(SETTINGS), st.text(max_size=60)), st.binary(max_size=40))
def test_whatever_the_files_hold_it_is_examined(texts, raw):
    with tempfile.TemporaryDirectory() as root:
        files = HostFiles(Path(root)).cpu().kvm()
        for path, text in texts.items():
            file = files.root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode() + raw)
        report = doctor.examine(files.host({0x8000_0000: (0, 0, 0, 0)}), lambda: Selection("kvm", "because", None))
        assert all(finding.reason and finding.state in doctor.STATES for finding in report.findings)


def test_this_host_looks_the_same_to_the_file_system_and_to_the_examination():
    report = doctor.examine()
    assert (report["KVM"].state == YES) <= os.path.exists("/dev/kvm")
    with open("/proc/cpuinfo") as cpuinfo:
        flags = next((line for line in cpuinfo if line.startswith("flags")), "").split()
    assert (report["SVM"].state == YES) == ("svm" in flags)
