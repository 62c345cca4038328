"""INS and OUTS: many items in one exit (APM vol. 2, 15.10.2 for what the exit says).

The silicon moves items between guest memory and a buffer by the rules of the instruction. Where the memory is a device,
one item at a time takes two exits, and the registers are stepped here.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.hv.exits import InternalError, MmioRead, MmioWrite, PioIn, PioOut
from pyhv.hv.sim import vmcb as v
from pyhv.hv.sim.native import ffi, lib

if TYPE_CHECKING:
    from pyhv.hv.exits import Exit
    from pyhv.hv.sim.vcpu import SimVcpu

BUFFER_SIZE = 4096
RCX, RSI, RDI = 1, 6, 7
FLAG_DF = 1 << 10
_EXITCODE, _INFO2, _INJECT, _RFLAGS = v.EXITCODE >> 3, v.EXITINFO2 >> 3, v.EVENTINJ >> 3, v.RFLAGS >> 3
_ADDRESS_MASKS = {0x80: 0xFFFF, 0x100: 0xFFFF_FFFF, 0x200: (1 << 64) - 1}


class StringPio:
    """The instruction at hand, by its EXITINFO1 and the address of the next one."""

    __slots__ = ("info", "mask", "next_rip", "port", "size")

    def __init__(self, info: int, next_rip: int) -> None:
        self.info = info
        self.next_rip = next_rip
        self.port, self.size = info >> 16 & 0xFFFF, info >> 4 & 7
        self.mask = _ADDRESS_MASKS.get(info & 0x380, (1 << 64) - 1)

    def left(self, vcpu: SimVcpu) -> int:
        """Items that are still to be moved, at least this one."""
        return max(1, int(vcpu.gpr[RCX]) & self.mask) if self.info & v.IOIO_REP else 1

    def step(self, vcpu: SimVcpu) -> None:
        """One item was moved: address, count and, after the last one, RIP."""
        gpr, register = vcpu.gpr, RDI if self.info & v.IOIO_IN else RSI
        last = self.left(vcpu) == 1
        distance = -self.size if vcpu.vmcb.quad[_RFLAGS] & FLAG_DF else self.size
        self._put(gpr, register, int(gpr[register]) + distance)
        if self.info & v.IOIO_REP:
            self._put(gpr, RCX, int(gpr[RCX]) - 1)
        if last:
            vcpu.skip(self.next_rip)

    def _put(self, gpr: object, register: int, value: int) -> None:
        registers: list[int] = gpr  # type: ignore[assignment]
        if self.mask == 0xFFFF:
            registers[register] = registers[register] & ~0xFFFF | value & 0xFFFF
        else:
            registers[register] = value & self.mask


def start(vcpu: SimVcpu, info: int) -> Exit | None:
    """The exit of an INS or OUTS; None where the guest can go on, with a fault."""
    string = StringPio(info, vcpu.vmcb.quad[_INFO2])
    if info & v.IOIO_IN:
        count = min(BUFFER_SIZE // string.size, string.left(vcpu))
        vcpu.expect_reply(lambda vcpu, data: _finish_input(vcpu, string, data), string.size * count)
        return PioIn(string.port, string.size, count)
    buffer = vcpu.string_buffer
    moved = lib.sim_string_io(vcpu.native, buffer, min(BUFFER_SIZE // string.size, string.left(vcpu)), 0)
    if moved:
        return PioOut(string.port, string.size, moved, bytes(ffi.buffer(buffer, moved * string.size)))
    if vcpu.vmcb.quad[_INJECT] & v.EVENT_VALID:
        return None
    access = _device_item(vcpu, string)
    if access is None:
        return _gave_up(vcpu)

    def finish(vcpu: SimVcpu, data: bytes) -> None:
        string.step(vcpu)
        vcpu.later(PioOut(string.port, string.size, 1, data))

    vcpu.expect_reply(finish, string.size)
    return MmioRead(access, string.size)


def _finish_input(vcpu: SimVcpu, string: StringPio, data: bytes) -> None:
    buffer, at, size = vcpu.string_buffer, 0, string.size
    while at < len(data):
        ffi.buffer(buffer)[: len(data) - at] = data[at:]
        moved = lib.sim_string_io(vcpu.native, buffer, (len(data) - at) // size, 1)
        at += moved * size
        if not moved:
            if vcpu.vmcb.quad[_INJECT] & v.EVENT_VALID:
                return
            access = _device_item(vcpu, string)
            if access is None:
                vcpu.later(_gave_up(vcpu))
                return
            vcpu.later(MmioWrite(access, data[at : at + size]))
            string.step(vcpu)
            at += size


def _device_item(vcpu: SimVcpu, string: StringPio) -> int | None:
    """The guest physical address of an item in a device, None where it is not one, or lies in two pages."""
    access = lib.sim_access(vcpu.native)
    if vcpu.vmcb.quad[_EXITCODE] != v.EXIT_NPF or not access.valid or access.size != string.size:
        return None
    access.valid = 0
    return int(access.addr)


def _gave_up(vcpu: SimVcpu) -> InternalError:
    detail = "INS or OUTS with an operand that is neither memory nor one item of a device"
    return InternalError("STRING_IO", detail, vcpu.dump(), vcpu.code_bytes())
