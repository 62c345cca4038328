"""A vCPU's start: its VMCB's control area, and its state after RESET and INIT (APM vol. 2, table 14-1)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.sim import state
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.native import ffi, lib
from pyhv.hv.sim.registers import ASID
from pyhv.x86.msr import PAT_RESET
from pyhv.x86.registers import FpuRegisters, GeneralRegisters, SystemRegisters

if TYPE_CHECKING:
    from pyhv.hv.sim.registers import GuestRegisters

INTERCEPTS1 = (
    v.INTR
    | v.NMI
    | v.SMI
    | v.INIT
    | v.CPUID
    | v.INVD
    | v.HLT
    | v.INVLPGA
    | v.IOIO_PROT
    | v.MSR_PROT
    | v.SHUTDOWN
    | v.RSM
)
INTERCEPTS2 = (
    v.VMRUN | v.VMMCALL | v.VMLOAD | v.VMSAVE | v.STGI | v.CLGI | v.SKINIT | v.MONITOR | v.MWAIT | v.XSETBV | v.RDPRU
)
LVT_LINT0, VIRTUAL_WIRE = 0x350, 0x700
CR0_RESET, CR0_ET, CR0_CACHES = 0x6000_0010, 0x10, 0x6000_0000
DR6_RESET, DR7_RESET = 0xFFFF_0FF0, 0x400
RESET_VECTOR = 0xFFF0
_CLEARED = (
    v.STAR,
    v.LSTAR,
    v.CSTAR,
    v.SFMASK,
    v.KERNEL_GS_BASE,
    v.SYSENTER_CS,
    v.SYSENTER_ESP,
    v.SYSENTER_EIP,
    v.DBGCTL,
    v.EVENTINJ,
    v.INTERRUPT_SHADOW,
)


def prepare(guest: GuestRegisters) -> None:
    """Fill the control area in, with the intercepts that a hypervisor like KVM sets."""
    vm, quad, word = guest.vm, guest.vmcb.quad, guest.vmcb.word
    pause = v.PAUSE if vm.config.vcpus > 1 else 0
    word[v.INTERCEPT_MISC1 >> 2] = INTERCEPTS1 | pause
    word[v.INTERCEPT_MISC2 >> 2] = INTERCEPTS2
    quad[v.IOPM_BASE_PA >> 3] = vm.iopm
    quad[v.MSRPM_BASE_PA >> 3] = vm.msrpm
    word[v.GUEST_ASID >> 2] = ASID
    quad[v.NP_ENABLE >> 3] = 1
    quad[v.N_CR3 >> 3] = vm.tables.root
    lib.sim_vapic_enable(guest.native, vm.config.irqchip != "none")


def reset(guest: GuestRegisters, *, init: bool = False) -> None:
    """RESET, or INIT, which keeps the caches' bits, the x87 and vector state, and the local APIC's identity."""
    vmcb, native = guest.vmcb, guest.native
    quad = vmcb.quad
    caches = quad[v.CR0 >> 3] & CR0_CACHES
    lib.sim_reset(native, init)
    state.write_system(vmcb, SystemRegisters(cr0=CR0_ET | caches if init else CR0_RESET))
    for offset in _CLEARED:
        quad[offset >> 3] = 0
    quad[v.DR6 >> 3], quad[v.DR7 >> 3] = DR6_RESET, DR7_RESET
    vmcb.word[v.INT_CTL >> 2] = v.V_INTR_MASKING
    if not init:
        quad[v.G_PAT >> 3] = PAT_RESET
        # As FNINIT leaves it: what KVM and QEMU start with.
        state.write_fpu(ffi.buffer(lib.sim_xsave_area(native), state.XSAVE_SIZE), FpuRegisters())
    registers = GeneralRegisters(rip=RESET_VECTOR, rdx=guest.features.signature())
    state.write_general(ffi.buffer(guest.gpr, state.GENERAL.size), vmcb, registers)
    lib.sim_vmload(native, vmcb.pa)
    if guest.index == 0 and guest.vm.config.irqchip != "none":
        _virtual_wire(guest)


def _virtual_wire(guest: GuestRegisters) -> None:
    """LINT0 passes the 8259's interrupts on, as firmware leaves it and as KVM does for the boot processor."""
    page = bytearray(guest.lapic)
    page[LVT_LINT0 : LVT_LINT0 + 4] = VIRTUAL_WIRE.to_bytes(4, "little")
    guest.lapic = bytes(page)


def start_up(guest: GuestRegisters, vector: int) -> None:
    """A start-up message: real mode at the page that its vector names (16.7)."""
    cs = guest.vmcb.get_segment("cs")
    cs.selector, cs.base = (vector & 0xFF) << 8, (vector & 0xFF) << 12
    guest.vmcb.set_segment("cs", cs)
    guest.vmcb.quad[v.RIP >> 3] = 0
