"""What the host does on each #VMEXIT (APM vol. 2, 15.7 to 15.25, appendix C).

A handler returns the exit that the VMM must see, or None where the guest can go on.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.exits import (
    Halt,
    Hypercall,
    InternalError,
    InterruptWindow,
    MmioRead,
    MmioWrite,
    PioIn,
    PioOut,
    Rdmsr,
    Shutdown,
    Wrmsr,
)
from pyhv.hv.sim import msrs, string_pio
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.native import lib

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyhv.hv.exits import Exit
    from pyhv.hv.sim.vcpu import SimVcpu

RCX, RDX, RBX, RSI = 1, 2, 3, 6
_EXITCODE, _INFO1, _INFO2 = v.EXITCODE >> 3, v.EXITINFO1 >> 3, v.EXITINFO2 >> 3
_INTINFO, _NRIP, _INJECT = v.EXITINTINFO >> 3, v.NRIP >> 3, v.EVENTINJ >> 3
_RAX, _RIP, _RFLAGS, _EFER, _CR0, _CR4 = (o >> 3 for o in (v.RAX, v.RIP, v.RFLAGS, v.EFER, v.CR0, v.CR4))
_MASKS = {1: 0xFF, 2: 0xFFFF, 4: 0xFFFF_FFFF}
_LOW = 0xFFFF_FFFF
UD, GP, DB = 6, 13, 1
KVM_ENOSYS, KVM_EPERM = 1000, 1
KVM_HC_VAPIC_POLL_IRQ = 1


def handle(vcpu: SimVcpu) -> Exit | None:
    """Deal with the #VMEXIT that the vCPU's VMCB tells of."""
    quad = vcpu.vmcb.quad
    interrupted = quad[_INTINFO]
    if interrupted & v.EVENT_VALID:
        _redeliver(vcpu, interrupted)
    code = quad[_EXITCODE]
    handler = _HANDLERS.get(code)
    if handler is None:
        return unknown(vcpu, code)
    return handler(vcpu)


def unknown(vcpu: SimVcpu, code: int) -> InternalError:
    """An exit that nobody asked for, or that the machine refused."""
    quad = vcpu.vmcb.quad
    detail = f"exit code {code:#x} ({v.exit_name(code)}), info {quad[_INFO1]:#x} {quad[_INFO2]:#x}"
    if code == v.EXIT_INVALID:
        detail = "VMRUN refused the guest's state"
    return InternalError(f"VMEXIT_{v.exit_name(code)}", detail, vcpu.dump(), vcpu.code_bytes())


def _redeliver(vcpu: SimVcpu, interrupted: int) -> None:
    """An event whose delivery an exit cut short happens again; software ones by executing their instruction again."""
    kind, vector = interrupted & v.EVENT_TYPE_MASK, interrupted & 0xFF
    if kind == v.EVENT_SOFT or (kind == v.EVENT_EXCEPTION and vector in (3, 4)):
        return
    vcpu.vmcb.quad[_INJECT] = interrupted


def _pio(vcpu: SimVcpu) -> Exit | None:
    quad = vcpu.vmcb.quad
    vcpu.device_time()
    info = quad[_INFO1]
    port, size = info >> 16 & 0xFFFF, info >> 4 & 7
    if info & v.IOIO_STR:
        return string_pio.start(vcpu, info)
    if info & v.IOIO_IN:
        vcpu.expect_reply(_finish_in, size)
        return PioIn(port, size, 1)
    data = (quad[_RAX] & _MASKS[size]).to_bytes(size, "little")
    vcpu.skip(quad[_INFO2])
    return PioOut(port, size, 1, data)


def _finish_in(vcpu: SimVcpu, data: bytes) -> None:
    quad = vcpu.vmcb.quad
    value = int.from_bytes(data, "little")
    size = len(data)
    quad[_RAX] = value if size == 4 else quad[_RAX] & ~_MASKS[size] | value
    vcpu.skip(quad[_INFO2])


def _nested_fault(vcpu: SimVcpu) -> Exit | None:
    """An access that the nested tables do not allow: devices, ROM, and addresses that nothing answers."""
    access = lib.sim_access(vcpu.native)
    quad = vcpu.vmcb.quad
    address = quad[_INFO2]
    if access.valid and not quad[_INFO1] & v.NPF_FETCH:
        size = access.size
        vcpu.device_time()
        if access.write:
            lib.sim_access_done(vcpu.native, 0)
            vcpu.unfinished = True
            return MmioWrite(access.addr, access.data.to_bytes(8, "little")[:size])
        vcpu.expect_reply(_finish_mmio, size)
        return MmioRead(access.addr, size)
    if vcpu.vm.memory.find(address) is None and vcpu.open_bus(address):
        return None
    return unknown(vcpu, v.EXIT_NPF)


def _finish_mmio(vcpu: SimVcpu, data: bytes) -> None:
    lib.sim_access_done(vcpu.native, int.from_bytes(data, "little"))
    vcpu.unfinished = True


def _msr(vcpu: SimVcpu) -> Exit | None:
    quad = vcpu.vmcb.quad
    index = vcpu.gpr[RCX] & _LOW
    if quad[_INFO1] & 1:
        value = (vcpu.gpr[RDX] & _LOW) << 32 | quad[_RAX] & _LOW
        if index in vcpu.vm.msr_writes:
            vcpu.expect_msr(_finish_wrmsr)
            return Wrmsr(index, value, "filter")
        _finish_wrmsr(vcpu, 0 if msrs.write(vcpu, index, value) else None)
    else:
        if index in vcpu.vm.msr_reads:
            vcpu.expect_msr(_finish_rdmsr)
            return Rdmsr(index, "filter")
        _finish_rdmsr(vcpu, msrs.read(vcpu, index))
    return None


def _finish_rdmsr(vcpu: SimVcpu, value: int | None) -> None:
    if value is None:
        vcpu.inject(GP, 0)
        return
    vcpu.vmcb.quad[_RAX] = value & _LOW
    vcpu.gpr[RDX] = value >> 32 & _LOW
    vcpu.skip(vcpu.vmcb.quad[_NRIP])


def _finish_wrmsr(vcpu: SimVcpu, value: int | None) -> None:
    if value is None:
        vcpu.inject(GP, 0)
    else:
        vcpu.skip(vcpu.vmcb.quad[_NRIP])


def _cpuid(vcpu: SimVcpu) -> None:
    quad, gpr = vcpu.vmcb.quad, vcpu.gpr
    quad[_RAX], gpr[RBX], gpr[RCX], gpr[RDX] = vcpu.features.answer(vcpu, quad[_RAX] & _LOW, gpr[RCX] & _LOW)
    vcpu.skip(quad[_NRIP])


def _hlt(vcpu: SimVcpu) -> Exit | None:
    vcpu.skip(vcpu.vmcb.quad[_NRIP])
    if vcpu.vm.config.irqchip == "none":
        return Halt()
    vcpu.halt()
    return None


def _shutdown(vcpu: SimVcpu) -> Exit:
    return Shutdown()


def _window(vcpu: SimVcpu) -> Exit:
    vcpu.close_window()
    return InterruptWindow()


def _pause(vcpu: SimVcpu) -> None:
    vcpu.skip(vcpu.vmcb.quad[_NRIP])
    vcpu.end_turn()


def _vmmcall(vcpu: SimVcpu) -> Exit | None:
    quad, gpr = vcpu.vmcb.quad, vcpu.gpr
    long = bool(quad[_EFER] & msrs.EFER_LMA) and bool(vcpu.vmcb.word[v.CS >> 2] >> 16 & 0x200)
    mask = (1 << 64) - 1 if long else _LOW
    number, arguments = quad[_RAX] & mask, tuple(gpr[r] & mask for r in (RBX, RCX, RDX, RSI))
    if vcpu.vm.hypercall_exits and vcpu.vmcb.cpl == 0 and number in vcpu.vm.hypercall_exits:
        vcpu.expect_hypercall(_finish_hypercall)
        return Hypercall(number, arguments)
    result = -KVM_EPERM if vcpu.vmcb.cpl else 0 if number == KVM_HC_VAPIC_POLL_IRQ else -KVM_ENOSYS
    _finish_hypercall(vcpu, result & mask)
    return None


def _finish_hypercall(vcpu: SimVcpu, result: int) -> None:
    vcpu.vmcb.quad[_RAX] = result & (1 << 64) - 1
    vcpu.skip(vcpu.vmcb.quad[_NRIP])


def _xsetbv(vcpu: SimVcpu) -> None:
    quad, gpr = vcpu.vmcb.quad, vcpu.gpr
    value = (gpr[RDX] & _LOW) << 32 | quad[_RAX] & _LOW
    if gpr[RCX] & _LOW or not vcpu.set_xcr0(value):
        vcpu.inject(GP, 0)
    else:
        vcpu.skip(quad[_NRIP])


def _undefined(vcpu: SimVcpu) -> None:
    """SVM's own instructions, and what CPUID does not show."""
    vcpu.inject(UD)


def _nothing(vcpu: SimVcpu) -> None:
    """A physical interrupt: the host has nothing to do for it."""


def _ignored(vcpu: SimVcpu) -> None:
    vcpu.skip(vcpu.vmcb.quad[_NRIP])


_HANDLERS: dict[int, Callable[[SimVcpu], Exit | None]] = {
    v.EXIT_IOIO: _pio,
    v.EXIT_NPF: _nested_fault,
    v.EXIT_MSR: _msr,
    v.EXIT_CPUID: _cpuid,
    v.EXIT_HLT: _hlt,
    v.EXIT_SHUTDOWN: _shutdown,
    v.EXIT_VINTR: _window,
    v.EXIT_PAUSE: _pause,
    v.EXIT_VMMCALL: _vmmcall,
    v.EXIT_XSETBV: _xsetbv,
    v.EXIT_INTR: _nothing,
    v.EXIT_NMI: _nothing,
    v.EXIT_INVD: _ignored,
    **dict.fromkeys(
        (
            v.EXIT_VMRUN,
            v.EXIT_VMLOAD,
            v.EXIT_VMSAVE,
            v.EXIT_STGI,
            v.EXIT_CLGI,
            v.EXIT_SKINIT,
            v.EXIT_INVLPGA,
            v.EXIT_MONITOR,
            v.EXIT_MWAIT,
            v.EXIT_MWAIT_ARMED,
            v.EXIT_RDPRU,
            v.EXIT_RSM,
        ),
        _undefined,
    ),
}
