"""The declared ABI against what the kernel's own numbers say, and against the system's headers where they are installed."""

import re
import subprocess
from pathlib import Path

import pytest

import pyhv.hv.kvm
from pyhv.hv.kvm.capabilities import NUMBERS
from pyhv.hv.kvm.native import ffi, lib

HEADER = Path(pyhv.hv.kvm.__file__).with_name("abi.h").read_text()
CONSTANTS = {name: int(value, 0) for name, value in re.findall(r"^#define (\w+) (\S+)$", HEADER, re.M)}
REQUESTS = {name: value for name, value in CONSTANTS.items() if value >> 8 & 0xFF == 0xAE}
STRUCTS = re.findall(r"^struct (kvm_\w+) \{", HEADER, re.M)

ARGUMENTS = {
    "KVM_GET_MSR_INDEX_LIST": "struct kvm_msr_list",
    "KVM_GET_SUPPORTED_CPUID": "struct kvm_cpuid2",
    "KVM_GET_EMULATED_CPUID": "struct kvm_cpuid2",
    "KVM_GET_MSR_FEATURE_INDEX_LIST": "struct kvm_msr_list",
    "KVM_GET_DIRTY_LOG": "struct kvm_dirty_log",
    "KVM_SET_USER_MEMORY_REGION": "struct kvm_userspace_memory_region",
    "KVM_SET_IDENTITY_MAP_ADDR": "uint64_t",
    "KVM_SET_USER_MEMORY_REGION2": "struct kvm_userspace_memory_region2",
    "KVM_IRQ_LINE": "struct kvm_irq_level",
    "KVM_IRQ_LINE_STATUS": "struct kvm_irq_level",
    "KVM_GET_IRQCHIP": "struct kvm_irqchip",
    "KVM_SET_IRQCHIP": "struct kvm_irqchip",
    "KVM_REGISTER_COALESCED_MMIO": "struct kvm_coalesced_mmio_zone",
    "KVM_UNREGISTER_COALESCED_MMIO": "struct kvm_coalesced_mmio_zone",
    "KVM_SET_GSI_ROUTING": "struct kvm_irq_routing",
    "KVM_IRQFD": "struct kvm_irqfd",
    "KVM_CREATE_PIT2": "struct kvm_pit_config",
    "KVM_IOEVENTFD": "struct kvm_ioeventfd",
    "KVM_SET_CLOCK": "struct kvm_clock_data",
    "KVM_GET_CLOCK": "struct kvm_clock_data",
    "KVM_GET_PIT2": "struct kvm_pit_state2",
    "KVM_SET_PIT2": "struct kvm_pit_state2",
    "KVM_ENABLE_CAP": "struct kvm_enable_cap",
    "KVM_SIGNAL_MSI": "struct kvm_msi",
    "KVM_CLEAR_DIRTY_LOG": "struct kvm_clear_dirty_log",
    "KVM_X86_SET_MSR_FILTER": "struct kvm_msr_filter",
    "KVM_SET_MEMORY_ATTRIBUTES": "struct kvm_memory_attributes",
    "KVM_CREATE_GUEST_MEMFD": "struct kvm_create_guest_memfd",
    "KVM_CREATE_DEVICE": "struct kvm_create_device",
    "KVM_GET_REGS": "struct kvm_regs",
    "KVM_SET_REGS": "struct kvm_regs",
    "KVM_GET_SREGS": "struct kvm_sregs",
    "KVM_SET_SREGS": "struct kvm_sregs",
    "KVM_TRANSLATE": "struct kvm_translation",
    "KVM_INTERRUPT": "struct kvm_interrupt",
    "KVM_GET_MSRS": "struct kvm_msrs",
    "KVM_SET_MSRS": "struct kvm_msrs",
    "KVM_GET_FPU": "struct kvm_fpu",
    "KVM_SET_FPU": "struct kvm_fpu",
    "KVM_GET_LAPIC": "struct kvm_lapic_state",
    "KVM_SET_LAPIC": "struct kvm_lapic_state",
    "KVM_SET_CPUID2": "struct kvm_cpuid2",
    "KVM_GET_CPUID2": "struct kvm_cpuid2",
    "KVM_GET_MP_STATE": "struct kvm_mp_state",
    "KVM_SET_MP_STATE": "struct kvm_mp_state",
    "KVM_SET_GUEST_DEBUG": "struct kvm_guest_debug",
    "KVM_GET_VCPU_EVENTS": "struct kvm_vcpu_events",
    "KVM_SET_VCPU_EVENTS": "struct kvm_vcpu_events",
    "KVM_GET_DEBUGREGS": "struct kvm_debugregs",
    "KVM_SET_DEBUGREGS": "struct kvm_debugregs",
    "KVM_GET_XSAVE": "struct kvm_xsave",
    "KVM_SET_XSAVE": "struct kvm_xsave",
    "KVM_GET_XSAVE2": "struct kvm_xsave",
    "KVM_GET_XCRS": "struct kvm_xcrs",
    "KVM_SET_XCRS": "struct kvm_xcrs",
    "KVM_GET_SREGS2": "struct kvm_sregs2",
    "KVM_SET_SREGS2": "struct kvm_sregs2",
    "KVM_SET_DEVICE_ATTR": "struct kvm_device_attr",
    "KVM_GET_DEVICE_ATTR": "struct kvm_device_attr",
    "KVM_HAS_DEVICE_ATTR": "struct kvm_device_attr",
}

SIZES = {
    "struct kvm_run": 304 + 2048,
    "struct kvm_sync_regs": 144 + 312 + 64,
    "struct kvm_segment": 24,
    "struct kvm_dtable": 16,
    "struct kvm_cpuid_entry2": 40,
    "struct kvm_msr_entry": 16,
    "struct kvm_msr_filter_range": 24,
    "struct kvm_irq_routing_entry": 48,
    "struct kvm_xcr": 16,
    "struct kvm_pit_channel_state": 24,
    "struct kvm_reinject_control": 32,
    "struct kvm_coalesced_mmio": 24,
    "struct kvm_coalesced_mmio_ring": 8,
    "struct kvm_dirty_gfn": 16,
    "struct kvm_stats_header": 24,
    "struct kvm_stats_desc": 16,
}
"""Structures that no request number encodes."""

OFFSETS = {
    ("struct kvm_run", "immediate_exit"): 1,
    ("struct kvm_run", "exit_reason"): 8,
    ("struct kvm_run", "ready_for_interrupt_injection"): 12,
    ("struct kvm_run", "if_flag"): 13,
    ("struct kvm_run", "cr8"): 16,
    ("struct kvm_run", "apic_base"): 24,
    ("struct kvm_run", "exit"): 32,
    ("struct kvm_run", "exit.io.port"): 34,
    ("struct kvm_run", "exit.io.count"): 36,
    ("struct kvm_run", "exit.io.data_offset"): 40,
    ("struct kvm_run", "exit.mmio.data"): 40,
    ("struct kvm_run", "exit.mmio.len"): 48,
    ("struct kvm_run", "exit.mmio.is_write"): 52,
    ("struct kvm_run", "exit.hypercall.ret"): 88,
    ("struct kvm_run", "exit.internal.data"): 40,
    ("struct kvm_run", "exit.emulation_failure.insn_bytes"): 49,
    ("struct kvm_run", "exit.system_event.data"): 40,
    ("struct kvm_run", "exit.msr.reason"): 40,
    ("struct kvm_run", "exit.msr.index"): 44,
    ("struct kvm_run", "exit.msr.data"): 48,
    ("struct kvm_run", "exit.memory_fault.gpa"): 40,
    ("struct kvm_run", "kvm_valid_regs"): 288,
    ("struct kvm_run", "s"): 304,
    ("struct kvm_userspace_memory_region2", "guest_memfd_offset"): 32,
    ("struct kvm_userspace_memory_region2", "guest_memfd"): 40,
    ("struct kvm_create_guest_memfd", "flags"): 8,
    ("struct kvm_memory_attributes", "attributes"): 16,
    ("struct kvm_irq_routing_entry", "u"): 16,
    ("struct kvm_ioeventfd", "fd"): 20,
    ("struct kvm_vcpu_events", "triple_fault"): 28,
    ("struct kvm_vcpu_events", "exception_payload"): 56,
    ("struct kvm_sregs", "cr0"): 224,
    ("struct kvm_sregs", "interrupt_bitmap"): 280,
    ("struct kvm_sregs2", "pdptrs"): 288,
    ("struct kvm_fpu", "xmm"): 152,
    ("struct kvm_fpu", "mxcsr"): 408,
    ("struct kvm_clock_data", "realtime"): 16,
}


def _numbers_argument(request: str) -> bool:
    return not REQUESTS[request] >> 16


@pytest.mark.parametrize("request_name", sorted(REQUESTS))
def test_each_request_encodes_the_size_of_its_structure(request_name: str) -> None:
    if _numbers_argument(request_name) and request_name not in ARGUMENTS:
        assert REQUESTS[request_name] >> 16 == 0
        return
    assert ffi.sizeof(ARGUMENTS[request_name]) == REQUESTS[request_name] >> 16 & 0x3FFF


@pytest.mark.parametrize(("name", "size"), SIZES.items())
def test_other_structures_have_their_sizes(name: str, size: int) -> None:
    assert ffi.sizeof(name) == size


def test_no_structure_is_left_without_a_proof() -> None:
    proved = {name.removeprefix("struct ") for name in (*ARGUMENTS.values(), *SIZES)}
    assert set(STRUCTS) <= proved


@pytest.mark.parametrize(("place", "offset"), OFFSETS.items())
def test_offsets(place: tuple[str, str], offset: int) -> None:
    name, path = place
    assert ffi.offsetof(name, *path.split(".")) == offset


def test_the_compiled_constants_are_those_of_the_header() -> None:
    assert {name: getattr(lib, name) for name in CONSTANTS} == CONSTANTS


SYSTEM_HEADER = Path("/usr/include/linux/kvm.h")
NEWER = {"kvm_userspace_memory_region2", "kvm_create_guest_memfd", "kvm_memory_attributes"}
"""Later than the oldest headers that this test may meet."""
RENAMED = {("kvm_guest_debug", "debugreg"): "arch.debugreg", ("kvm_run", "exit.debug"): "debug.arch"}


def _field_paths(kind: object, prefix: str = "") -> list[str]:
    paths = []
    for name, field in kind.fields or ():  # type: ignore[attr-defined]
        if name.startswith(("pad", "reserved")):
            continue
        paths.append(prefix + name)
        if field.type.kind in ("struct", "union") and not field.type.cname.startswith("struct kvm_"):
            paths += _field_paths(field.type, f"{prefix}{name}.")
    return paths


def _theirs(struct: str, path: str) -> str:
    for (owner, ours), theirs in RENAMED.items():
        if struct == owner and (path == ours or path.startswith(ours + ".")):
            return theirs + path.removeprefix(ours)
    if struct == "kvm_run":
        path = path.removeprefix("exit.")
        if path == "hypercall.flags":
            path = "hypercall.longmode"
    return path


@pytest.mark.skipif(not SYSTEM_HEADER.exists(), reason="no <linux/kvm.h> to compare with")
def test_layouts_and_numbers_agree_with_the_system_header(tmp_path: Path) -> None:
    lines = ["#include <stddef.h>", "#include <stdio.h>", "#include <linux/kvm.h>", "int main(void) {"]
    expected = {}
    for struct in STRUCTS:
        if struct in NEWER:
            continue
        kind = ffi.typeof(f"struct {struct}")
        lines.append(f'printf("{struct} %zu\\n", sizeof(struct {struct}));')
        expected[struct] = ffi.sizeof(kind)
        for path in _field_paths(kind):
            if struct == "kvm_run" and path.split(".")[:2] in (["exit"], ["exit", "memory_fault"]):
                continue
            lines.append(f'printf("{struct}.{path} %zu\\n", offsetof(struct {struct}, {_theirs(struct, path)}));')
            expected[f"{struct}.{path}"] = ffi.offsetof(f"struct {struct}", *path.split("."))
    for name, value in CONSTANTS.items():
        lines += [f"#ifdef {name}", f'printf("{name} %llu\\n", (unsigned long long)({name}));', "#endif"]
        expected[name] = value
    for name, value in NUMBERS.items():
        symbol = f"KVM_CAP_{name}"
        lines += [f"#ifdef {symbol}", f'printf("{symbol} %llu\\n", (unsigned long long)({symbol}));', "#endif"]
        expected[symbol] = value
    lines += ["return 0; }"]
    (tmp_path / "oracle.c").write_text("\n".join(lines))
    subprocess.run(["gcc", "-w", "-o", "oracle", "oracle.c"], cwd=tmp_path, check=True, timeout=60)
    output = subprocess.run([tmp_path / "oracle"], capture_output=True, text=True, check=True, timeout=60).stdout
    theirs = {name: int(value) for name, value in (line.rsplit(" ", 1) for line in output.splitlines())}
    assert len(theirs) > 400
    assert {name: expected[name] for name in theirs} == theirs
