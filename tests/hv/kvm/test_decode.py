"""Exits that a guest cannot be made to cause at will: decoded from a kvm_run that says so."""

from typing import Any

import pytest

from pyhv.hv.exits import (
    ApicAccess,
    DirtyRingFull,
    Hypercall,
    InternalError,
    Interrupted,
    MemoryFault,
    SystemEvent,
    SystemEventKind,
)
from pyhv.hv.kvm.decode import decode, failed_run
from pyhv.hv.kvm.native import ffi, lib


class FakeVcpu:
    """What the decoders ask of a vCPU."""

    def dump(self) -> str:
        return "rip 1234"

    def instruction_bytes(self) -> bytes:
        return b"\x0f\x0b"


VCPU: Any = FakeVcpu()


@pytest.fixture
def run() -> Any:
    return ffi.new("struct kvm_run *")


def test_an_emulation_failure_brings_its_instruction(run: Any) -> None:
    failure = run.exit.emulation_failure
    failure.suberror, failure.ndata, failure.flags, failure.insn_size = 1, 4, 1, 3
    failure.insn_bytes[0:3] = [0x0F, 0x01, 0xC1]
    exit = decode(VCPU, run, lib.KVM_EXIT_INTERNAL_ERROR)
    assert isinstance(exit, InternalError)
    assert (exit.name, exit.instruction, exit.registers) == ("KVM_EXIT_INTERNAL_ERROR", b"\x0f\x01\xc1", "rip 1234")
    assert "emulated" in exit.detail


def test_an_emulation_failure_without_bytes_takes_them_from_memory(run: Any) -> None:
    run.exit.internal.suberror = 1
    exit = decode(VCPU, run, lib.KVM_EXIT_INTERNAL_ERROR)
    assert isinstance(exit, InternalError) and exit.instruction == b"\x0f\x0b"


def test_lying_lengths_stay_within_the_structure(run: Any) -> None:
    failure = run.exit.emulation_failure
    failure.suberror, failure.ndata, failure.flags, failure.insn_size = 1, 0xFFFFFFFF, 1, 255
    exit = decode(VCPU, run, lib.KVM_EXIT_INTERNAL_ERROR)
    assert isinstance(exit, InternalError) and len(exit.instruction) == 15 and len(exit.data) == 16


@pytest.mark.parametrize("suberror", [2, 3, 4, 99])
def test_other_internal_errors_carry_their_data(run: Any, suberror: int) -> None:
    internal = run.exit.internal
    internal.suberror, internal.ndata = suberror, 2
    internal.data[0], internal.data[1] = 5, 6
    exit = decode(VCPU, run, lib.KVM_EXIT_INTERNAL_ERROR)
    assert isinstance(exit, InternalError)
    assert exit.data == (5, 6) and f"suberror {suberror}" in exit.detail


def test_a_failed_entry_names_its_reason(run: Any) -> None:
    run.exit.fail_entry.hardware_entry_failure_reason = 0xFFFFFFFF
    run.exit.fail_entry.cpu = 3
    exit = decode(VCPU, run, lib.KVM_EXIT_FAIL_ENTRY)
    assert isinstance(exit, InternalError)
    assert exit.name == "KVM_EXIT_FAIL_ENTRY" and "0xffffffff" in exit.detail and exit.data == (0xFFFFFFFF, 3)


@pytest.mark.parametrize(("reason", "name"), [(0, "KVM_EXIT_UNKNOWN"), (34, "KVM_EXIT_XEN"), (77, "KVM exit 77")])
def test_an_exit_that_nobody_knows_is_an_error_that_names_it(run: Any, reason: int, name: str) -> None:
    exit = decode(VCPU, run, reason)
    assert isinstance(exit, InternalError) and exit.name == name and exit.registers


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1, SystemEventKind.SHUTDOWN),
        (2, SystemEventKind.RESET),
        (3, SystemEventKind.CRASH),
        (6, SystemEventKind.SEV_TERMINATE),
    ],
)
def test_system_events(run: Any, number: int, kind: SystemEventKind) -> None:
    run.exit.system_event.type, run.exit.system_event.ndata = number, 1
    run.exit.system_event.data[0] = 9
    assert decode(VCPU, run, lib.KVM_EXIT_SYSTEM_EVENT) == SystemEvent(kind, (9,))


def test_an_unknown_system_event_is_an_error(run: Any) -> None:
    run.exit.system_event.type = 200
    assert isinstance(decode(VCPU, run, lib.KVM_EXIT_SYSTEM_EVENT), InternalError)


def test_hypercalls(run: Any) -> None:
    run.exit.hypercall.nr = 12
    run.exit.hypercall.args[2] = 7
    assert decode(VCPU, run, lib.KVM_EXIT_HYPERCALL) == Hypercall(12, (0, 0, 7, 0, 0, 0))


def test_the_rest(run: Any) -> None:
    assert decode(VCPU, run, lib.KVM_EXIT_SET_TPR) == ApicAccess("set-tpr")
    assert decode(VCPU, run, lib.KVM_EXIT_DIRTY_RING_FULL) == DirtyRingFull()
    assert decode(VCPU, run, lib.KVM_EXIT_INTR) == Interrupted()


def test_efault_with_a_memory_fault_is_one(run: Any) -> None:
    run.exit_reason = lib.KVM_EXIT_MEMORY_FAULT
    fault = run.exit.memory_fault
    fault.flags, fault.gpa, fault.size = 8, 0x1000, 0x1000
    assert failed_run(VCPU, run, 14) == MemoryFault(0x1000, 0x1000, True)


def test_other_errnos_are_errors_with_registers(run: Any) -> None:
    exit = failed_run(VCPU, run, 14)
    assert isinstance(exit, InternalError) and exit.name == "KVM_RUN: Bad address" and exit.registers == "rip 1234"
