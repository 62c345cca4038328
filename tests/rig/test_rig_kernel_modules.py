from pathlib import Path

import pytest
from amdv_rig.errors import RigSetupError
from amdv_rig.initramfs import RigKernel, find_kernel, module_paths
from amdv_rig.job import Job
from made_module import made_module

DEP = """\
kernel/virt/lib/irqbypass.ko:
kernel/arch/x86/kvm/kvm.ko: kernel/virt/lib/irqbypass.ko
kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko kernel/virt/lib/irqbypass.ko
kernel/drivers/vfio/vfio.ko:
"""


@pytest.fixture
def kernel(tmp_path: Path) -> RigKernel:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "modules.dep").write_text(DEP)
    (modules / "modules.builtin").write_text("")
    module = modules / "kernel/arch/x86/kvm/kvm-amd.ko"
    module.parent.mkdir(parents=True)
    module.write_bytes(made_module("parmtype=nested:int"))
    (tmp_path / "vmlinuz").write_bytes(b"")
    return find_kernel(tmp_path)


def job(params: dict[str, list[str]], *modules: str) -> Job:
    return Job(command=("true",), directory=Path("/"), modules=("kvm_amd", *modules), module_params=params)


def test_parameters_that_nobody_reads_are_refused(kernel: RigKernel) -> None:
    assert len(module_paths(kernel, job({"kvm_amd": ["nested=0"]}))) == 3
    with pytest.raises(RigSetupError, match="no parameter 'bogus'"):
        module_paths(kernel, job({"kvm_amd": ["nested=0", "bogus=1"]}))
    with pytest.raises(RigSetupError, match="'vfio' is not loaded"):
        module_paths(kernel, job({"vfio": ["a=1"]}))


def test_a_module_that_the_kernel_lacks(kernel: RigKernel) -> None:
    with pytest.raises(RigSetupError, match="no module 'nope'"):
        module_paths(kernel, job({}, "nope"))


def test_a_kernel_that_was_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(RigSetupError, match="make kernels"):
        find_kernel(tmp_path / "cloud")
