"""RESET of a vCPU; KVM has no request for it, so every register file is written."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.x86.msr import RESET_VALUES
from pyhv.x86.registers import DebugRegisters, FpuRegisters, GeneralRegisters, MpState, SystemRegisters, VcpuEvents

if TYPE_CHECKING:
    from pyhv.hv.kvm.vcpu import KvmVcpu

_APIC_BASE = 0xFEE00800
_APIC_BSP = 1 << 8


def reset_lapic(page: bytes, index: int, bsp: bool) -> bytes:
    """A local APIC's registers after RESET (APM vol. 2, 16.3.3): the version stays, everything is masked."""
    out = bytearray(1024)
    out[0x30:0x34] = page[0x30:0x34]

    def put(offset: int, value: int) -> None:
        out[offset : offset + 4] = value.to_bytes(4, "little")

    put(0x20, index << 24 & 0xFFFF_FFFF if index < 256 else index)
    put(0xE0, 0xFFFF_FFFF)
    put(0xF0, 0xFF)
    for offset in (0x320, 0x330, 0x340, 0x350, 0x360, 0x370):
        put(offset, 1 << 16)
    if bsp:
        put(0x350, 0x700)  # LINT0 passes the 8259 on, as KVM leaves it for the boot processor
    return bytes(out)


def reset_vcpu(vcpu: KvmVcpu) -> None:
    """See `pyhv.hv.api.Vcpu.reset`."""
    bsp = vcpu.index == 0
    signature = next((entry.eax for entry in vcpu.get_cpuid() if entry.function == 1), 0x600)
    vcpu.set_guest_debug()
    vcpu.request_interrupt_window = False
    system = SystemRegisters(apic_base=_APIC_BASE | (_APIC_BSP if bsp else 0))
    vcpu.events = VcpuEvents()
    vcpu.system = system
    vcpu.general = GeneralRegisters(rip=0xFFF0, rdx=signature, rflags=2)
    vcpu.debug = DebugRegisters()
    vcpu.xcr0 = 1
    # XSTATE_BV with x87 and SSE present, everything else in its initial state.
    vcpu.xsave = initial_xsave()
    vcpu.fpu = FpuRegisters()  # as FNINIT leaves it, like KVM's new vCPUs
    if vcpu.has_lapic:
        vcpu.lapic = reset_lapic(vcpu.lapic, vcpu.index, bsp)
    known = vcpu.get_msrs(RESET_VALUES)
    vcpu.set_msrs({index: value for index, value in RESET_VALUES.items() if index in known and known[index] != value})
    vcpu.mp_state = MpState.RUNNABLE if bsp or not vcpu.has_lapic else MpState.UNINITIALIZED


def initial_xsave() -> bytes:
    """An XSAVE area in which every component is in its initial state."""
    area = bytearray(4096)
    area[0:2] = (0x37F).to_bytes(2, "little")
    area[24:28] = (0x1F80).to_bytes(4, "little")
    return bytes(area)
