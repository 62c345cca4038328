"""An option ROM through which a BIOS boots what the machine offers in fw_cfg.

It is a Plug and Play device with a bootstrap entry vector (Plug and Play BIOS specification 1.0A, 3.2; BIOS boot
specification 1.01). All decisions are made on the host: the ROM has a list of fw_cfg DMA requests (QEMU
docs/specs/fw_cfg), hands one after the other to the device, sets the registers and jumps.
"""

from __future__ import annotations

import struct

from pyhv._types import TYPE_CHECKING
from pyhv.chipset.fw_cfg import DMA_READ, DMA_SELECT
from pyhv.chipset.layout import FW_CFG_DMA_PORT
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

BLOCK: Final = 512
PRODUCT: Final = b"pyhv kernel\0"
_PRODUCT_AT, _PNP_AT, _CODE_AT = 0x1C, 0x30, 0x50
_REQUEST_SEGMENT: Final = 0x004F
"""The BIOS data area's 16 bytes for communication between programs, at 0x4F0: the request that the device works on."""
_REQUEST_PORT_VALUE: Final = int.from_bytes((_REQUEST_SEGMENT << 4).to_bytes(4, "little"), "big")
_ERROR: Final = 1 << 24
"""The error bit of a request's status, which is big-endian."""


@record(frozen=True)
class Transfer:
    """`length` bytes of the fw_cfg item `key` go to `address`."""

    key: int
    length: int
    address: int


@record(frozen=True)
class RealModeEntry:
    """Where the ROM jumps, in real mode; `segment` goes to DS, ES, FS, GS and SS."""

    cs: int
    ip: int
    segment: int
    sp: int
    edx: int = 0
    interrupts: bool = False


def build(transfers: Sequence[Transfer], entry: RealModeEntry) -> bytes:
    """The ROM, in whole blocks of 512 bytes, its bytes adding up to zero."""
    code_size = len(_code(0, entry))
    requests = _CODE_AT + code_size
    body = _code(requests, entry) + b"".join(_request(transfer) for transfer in transfers) + bytes(4)
    rom = bytearray(-(-(_CODE_AT + len(body)) // BLOCK) * BLOCK)
    struct.pack_into("<HBB", rom, 0, 0xAA55, len(rom) // BLOCK, 0xCB)  # its initialisation is a far return
    struct.pack_into("<H", rom, 0x1A, _PNP_AT)
    rom[_PRODUCT_AT : _PRODUCT_AT + len(PRODUCT)] = PRODUCT
    rom[_PNP_AT : _PNP_AT + 32] = _pnp_header()
    rom[_CODE_AT : _CODE_AT + len(body)] = body
    rom[-1] = -sum(rom) & 0xFF
    return bytes(rom)


def _pnp_header() -> bytes:
    other_device_that_boots = (0, 0, 0x80)
    header = bytearray(
        struct.pack(
            "<4sBBHBBIHH3BBHHHHH",
            b"$PnP",
            1,
            2,
            0,
            0,
            0,
            0,
            0,
            _PRODUCT_AT,
            *other_device_that_boots,
            0x14,
            0,
            0,
            _CODE_AT,
            0,
            0,
        )
    )
    header[9] = -sum(header) & 0xFF
    return bytes(header)


def _request(transfer: Transfer) -> bytes:
    return struct.pack(">IIQ", transfer.key << 16 | DMA_SELECT | DMA_READ, transfer.length, transfer.address)


def _code(requests: int, entry: RealModeEntry) -> bytes:
    """The bootstrap code; `requests` is the offset of the list, which a zero dword ends."""
    copy = b"".join(
        (
            bytes.fromhex("fa fc 0e 1f be"),  # cli; cld; push cs; pop ds; mov si, requests
            struct.pack("<H", requests),
            b"\xb8" + struct.pack("<H", _REQUEST_SEGMENT),  # mov ax, 0x4f
            bytes.fromhex("8ec0"),  # mov es, ax
        )
    )
    poll = (
        bytes.fromhex("26 66 a1 0000 66 3d")  # wait: mov eax, es:[0]; cmp eax, ERROR
        + struct.pack("<I", _ERROR)
        + bytes.fromhex("75 02 cd18")  # jne +2; int 0x18: nothing booted
        + bytes.fromhex("66 85c0 75")  # test eax, eax; jnz wait
    )
    poll += struct.pack("<b", -(len(poll) + 1))
    transfer = (
        bytes.fromhex("31ff b90800 f3a5 ba")  # xor di, di; mov cx, 8; rep movsw; mov dx, DMA port
        + struct.pack("<H", FW_CFG_DMA_PORT)
        + bytes.fromhex("66 31c0 66 ef 83c204 66 b8")  # xor eax, eax; out dx, eax; add dx, 4; mov eax, address
        + struct.pack("<I", _REQUEST_PORT_VALUE)
        + bytes.fromhex("66 ef")  # out dx, eax
        + poll
    )
    test = bytes.fromhex("66 833c00 74") + struct.pack("<b", len(transfer) + 2)  # next: cmp dword [si], 0; je start
    loop = test + transfer
    loop += b"\xeb" + struct.pack("<b", -(len(loop) + 2))  # jmp next
    start = (
        b"\xb8"
        + struct.pack("<H", entry.segment)
        + bytes.fromhex("8ed8 8ec0 8ee0 8ee8 8ed0 66 bc")  # mov ds, es, fs, gs, ss from ax; mov esp, sp
        + struct.pack("<I", entry.sp)
        + bytes.fromhex("66 ba")  # mov edx, ...
        + struct.pack("<I", entry.edx)
        + (b"\xfb" if entry.interrupts else b"")  # sti
        + b"\xea"  # jmp cs:ip
        + struct.pack("<HH", entry.ip, entry.cs)
    )
    return copy + loop + start
