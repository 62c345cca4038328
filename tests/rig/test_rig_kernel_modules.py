from pathlib import Path

import pytest
from amdv_rig.errors import RigSetupError
from amdv_rig.initramfs import RigKernel, find_kernel, module_paths
from amdv_rig.job import Job
from amdv_rig.kernel_modules import has_parameter, load_order, module_name, parse_dependencies

DEP = """\
kernel/virt/lib/irqbypass.ko:
kernel/arch/x86/kvm/kvm.ko: kernel/virt/lib/irqbypass.ko
kernel/arch/x86/kvm/kvm-amd.ko: kernel/arch/x86/kvm/kvm.ko kernel/virt/lib/irqbypass.ko
kernel/drivers/vfio/vfio.ko:
kernel/drivers/vfio/pci/vfio-pci.ko: kernel/drivers/vfio/vfio.ko kernel/virt/lib/irqbypass.ko
"""


def test_dependencies_are_loaded_first() -> None:
    assert load_order(parse_dependencies(DEP), ["kvm_amd"]) == [
        "kernel/virt/lib/irqbypass.ko",
        "kernel/arch/x86/kvm/kvm.ko",
        "kernel/arch/x86/kvm/kvm-amd.ko",
    ]


def test_what_two_modules_need_is_loaded_once() -> None:
    order = load_order(parse_dependencies(DEP), ["vfio-pci", "kvm-amd", "vfio_pci"])
    assert len(order) == len(set(order)) == 5
    assert order.index("kernel/drivers/vfio/vfio.ko") < order.index("kernel/drivers/vfio/pci/vfio-pci.ko")


def test_names_as_the_kernel_has_them() -> None:
    assert module_name("kernel/arch/x86/kvm/kvm-amd.ko") == "kvm_amd"
    assert module_name("a/b.ko.xz") == "b"
    assert module_name("vfio-pci") == "vfio_pci"


def test_an_unknown_module_is_the_users_mistake() -> None:
    with pytest.raises(RigSetupError, match="no module 'nope'"):
        load_order(parse_dependencies(DEP), ["nope"])


def test_lines_that_are_no_entries_are_passed_over() -> None:
    assert parse_dependencies("\nnonsense\n:\na.ko:\n") == {"a.ko": []}


def test_declared_parameters() -> None:
    content = b"\x7fELF..\0parmtype=nested:int\0parm=nested:on\0"
    assert has_parameter(content, "nested")
    assert not has_parameter(content, "nest")
    assert not has_parameter(content, "ested")


@pytest.fixture
def kernel(tmp_path: Path) -> RigKernel:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "modules.dep").write_text(DEP)
    module = modules / "kernel/arch/x86/kvm/kvm-amd.ko"
    module.parent.mkdir(parents=True)
    module.write_bytes(b"\0parmtype=nested:int\0")
    (tmp_path / "vmlinuz").write_bytes(b"")
    return find_kernel(tmp_path)


def job(params: dict[str, list[str]]) -> Job:
    return Job(command=("true",), directory=Path("/"), modules=("kvm_amd",), module_params=params)


def test_parameters_that_nobody_reads_are_refused(kernel: RigKernel) -> None:
    assert len(module_paths(kernel, job({"kvm_amd": ["nested=0"]}))) == 3
    with pytest.raises(RigSetupError, match="no parameter 'bogus'"):
        module_paths(kernel, job({"kvm_amd": ["nested=0", "bogus=1"]}))
    with pytest.raises(RigSetupError, match="'vfio' is not loaded"):
        module_paths(kernel, job({"vfio": ["a=1"]}))


def test_a_kernel_that_was_not_fetched(tmp_path: Path) -> None:
    with pytest.raises(RigSetupError, match="make kernels"):
        find_kernel(tmp_path / "cloud")
