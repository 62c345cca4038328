"""Debian's own kvm_amd, in a Linux guest of the bare simulated machine, runs a guest by the silicon's SVM."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pyhv
from pyhv.hv.select import select

PROJECT = Path(__file__).parents[2]
KERNEL = PROJECT / "build/kernels/cloud"
MODULES = ("virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko")
INIT = """\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t devtmpfs devtmpfs /dev
for module in irqbypass kvm kvm-amd; do insmod /modules/$module.ko; done
inner_kvm
poweroff -f
"""


@pytest.fixture
def initramfs(tmp_path: Path) -> Path:
    """Busybox, KVM's modules, and a user of /dev/kvm."""
    if not (KERNEL / "vmlinuz").exists():
        pytest.skip("no kernels: make kernels")
    if shutil.which("gcc") is None:
        pytest.skip("the inner user of /dev/kvm needs gcc")
    sys.path.insert(0, str(PROJECT / "scripts"))
    try:
        import busybox_initramfs as busybox
    finally:
        sys.path.pop(0)
    program = tmp_path / "inner_kvm"
    source = Path(__file__).with_name("inner_kvm.c")
    subprocess.run(["gcc", "-O1", "-static", "-o", program, source], check=True, timeout=60)
    archive = busybox.base_archive(busybox.static_busybox())
    for module in MODULES:
        path = KERNEL / "modules/kernel" / module
        archive.file(f"modules/{path.name}", path.read_bytes())
    archive.file("bin/inner_kvm", program.read_bytes(), 0o755)
    archive.file("init", INIT.encode(), 0o755)
    out = tmp_path / "initramfs.cpio"
    out.write_bytes(archive.to_bytes())
    return out


def test_kvm_amd_runs_a_guest(initramfs: Path) -> None:
    machine = pyhv.Machine(
        KERNEL / "vmlinuz", initrd=initramfs, cmdline="console=ttyS0 quiet", memory="256M", features=("+svm",)
    )
    with machine.start(backend=select("sim")) as vm:
        result = vm.wait(300)
        statistics = vm.handle.statistics()
    assert result.outcome is pyhv.Outcome.POWER_OFF, result.report()
    assert "port e9 value 3e8" in result.console and "memory 3e8" in result.console
    assert "NESTED OK" in result.console
    assert statistics["vmruns"] >= 4 and statistics["exit_npf"] >= 1
    assert statistics["exit.IOIO"] == 2 and statistics["exit.CPUID"] == statistics["exit.HLT"] == 1
