"""SVM, nested paging, AVIC and SEV on hosts of every kind."""

import struct

import pytest
from doctor_hosts import ALL_ON, EPYC, LEAVES, HostFiles

from pyhv.doctor import NO, UNKNOWN, YES, Host, amd

CHECKS = [amd.svm, amd.nested_paging, amd.avic, amd.x2avic, amd.sev, amd.sev_es, amd.sev_snp]


@pytest.fixture
def files(tmp_path):
    return HostFiles(tmp_path)


def states(host):
    return [check(host).state for check in CHECKS]


def test_everything_on(files):
    files.cpu().kvm(**ALL_ON).write("/dev/sev", "")
    host = files.host(LEAVES)
    assert states(host) == [YES] * 7
    assert "509 keys" in amd.sev(host).reason
    assert [check(host).fix for check in CHECKS] == [""] * 7


def test_everything_off_names_the_parameter_that_turns_it_on(files):
    files.cpu().kvm(**dict.fromkeys(ALL_ON, "N"))
    host = files.host(LEAVES)
    assert states(host) == [YES] + [NO] * 6
    reload = "sudo modprobe -r kvm_amd && sudo modprobe kvm_amd "
    assert amd.nested_paging(host).fix == reload + "npt=1"
    assert amd.avic(host).fix == amd.x2avic(host).fix == reload + "avic=1"
    assert amd.sev(host).fix == reload + "sev=1"
    assert amd.sev_es(host).fix == reload + "sev=1 sev_es=1"
    assert amd.sev_snp(host).fix.endswith(reload + "sev_snp=1")


def test_root_needs_no_sudo(files):
    files.cpu().kvm(npt="N")
    assert amd.nested_paging(files.host(root_user=True)).fix == "modprobe -r kvm_amd && modprobe kvm_amd npt=1"


def test_number_parameters_count_like_letters(files):
    files.cpu().kvm(npt="1", avic="0")
    assert [amd.nested_paging(files.host()).state, amd.avic(files.host()).state] == [YES, NO]


def test_a_cpu_without_the_features(files):
    files.cpu(flags="svm").kvm(npt="N", avic="N", sev="N", sev_es="N", sev_snp="N")
    host = files.host()
    assert states(host) == [YES] + [NO] * 6
    assert all(
        "CPU has none" in check(host).reason
        for check in (amd.nested_paging, amd.avic, amd.sev, amd.sev_es, amd.sev_snp)
    )
    assert not any(check(host).fix for check in CHECKS[1:])


def test_x2avic_is_unknown_where_the_kernel_hides_it(files):
    files.cpu().kvm(avic="Y")
    finding = amd.x2avic(files.host())
    assert (finding.state, finding.fix) == (UNKNOWN, "sudo modprobe cpuid, then ask again")
    files.cpu(flags=EPYC + " x2avic")
    assert amd.x2avic(files.host()).state == YES
    assert (
        amd.x2avic(
            HostFiles(files.root).cpu().host({0x8000_0000: LEAVES[0x8000_0000], 0x8000_000A: (0, 0, 0, 0)})
        ).state
        == NO
    )


def test_the_kernels_cpuid_device_is_read(files):
    device = files.root / "dev/cpu/0/cpuid"
    device.parent.mkdir(parents=True)
    with open(device, "wb") as sparse:
        sparse.seek(0x8000_001F)
        sparse.write(struct.pack("<4I", *LEAVES[0x8000_001F]))
    assert files.host().cpuid(0x8000_001F) == LEAVES[0x8000_001F]
    assert files.host().cpuid(0x9000_0000) is None


def test_kvm_amd_not_loaded(files):
    files.cpu()
    assert states(files.host()) == [YES] + [UNKNOWN] * 6
    assert amd.nested_paging(files.host()).fix == "sudo modprobe kvm_amd"


def test_another_module_serves_kvm(files):
    files.cpu(flags="fpu hypervisor").kvm("kvm_pvm", npt="Y", avic="Y", sev="Y")
    assert states(files.host()) == [NO] * 7
    assert "nested=1" in amd.nested_paging(files.host()).fix


def test_an_intel_cpu(files):
    files.cpu("GenuineIntel", "vmx ept").kvm("kvm_intel")
    host = files.host()
    assert states(host) == [NO] * 7
    assert amd.svm(host).reason.endswith("it has no AMD-V, but VMX")


def test_svm_locked_by_the_firmware(files):
    files.cpu(flags="fpu")
    finding = amd.svm(files.host(LEAVES))
    assert finding.state == NO and "locked" in finding.reason and "firmware setup" in finding.fix


def test_memory_encryption_off_in_the_firmware(files):
    files.cpu(flags="svm npt avic").kvm(sev="N", sev_es="N", sev_snp="N")
    assert "SMEE" in amd.sev(files.host(LEAVES)).fix


def test_no_keys_for_sev_es(files):
    files.cpu().kvm(sev="Y", sev_es="N")
    finding = amd.sev_es(files.host(LEAVES | {0x8000_001F: (0x1A, 51, 509, 1)}))
    assert finding.state == NO and "ASID space limit" in finding.fix


def test_sev_without_its_device(files):
    files.cpu().kvm(**ALL_ON)
    for check in (amd.sev, amd.sev_es, amd.sev_snp):
        assert (check(files.host(LEAVES)).state, check(files.host(LEAVES)).fix) == (NO, "sudo modprobe ccp")


def test_sev_without_permission_for_its_device(files):
    class Closed(Host):
        def accessible(self, path):
            return False

    files.cpu().kvm(**ALL_ON).write("/dev/sev", "")
    finding = amd.sev(Closed(str(files.root), cpuid=LEAVES.get, user="ada", root_user=False))
    assert finding.state == NO and "the user ada may not open /dev/sev" in finding.reason
    assert 'KERNEL=="sev"' in finding.fix and finding.fix.endswith("sudo udevadm trigger /dev/sev")


def test_a_kernel_too_old_for_snp(files):
    files.cpu().kvm(sev="Y", sev_es="Y")
    files.write("/proc/sys/kernel/osrelease", "6.1.0-42-amd64")
    finding = amd.sev_snp(files.host(LEAVES))
    assert finding.state == NO and "6.1" in finding.reason and "6.11" in finding.fix


def test_unreadable_cpuinfo_is_unknown_and_not_no(files):
    assert amd.svm(files.host()).state == UNKNOWN
