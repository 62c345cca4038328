"""A guest of a few instructions drives a device over virtio-mmio, from its registers to its answer, on each backend."""

from pathlib import Path

import tiny
from virtio_driver import Upper

import pyhv
from pyhv.chipset.layout import VIRTIO_MMIO_BASE
from pyhv.hv.select import Selection
from pyhv.virtio import ids, mmio

DESCRIPTORS, DRIVER, DEVICE, TEXT, ANSWER = 0x10000, 0x11000, 0x12000, 0x13000, 0x14000
STATUS = [ids.ACKNOWLEDGE, ids.ACKNOWLEDGE | ids.DRIVER]


def stores(packed: bool) -> list[tuple[int, int]]:
    """What the guest writes where, up to and with the notification."""
    features = (1 << ids.VERSION_1 | packed << ids.RING_PACKED) >> 32
    flags = (ids.DESC_AVAIL << 16 | ids.DESC_NEXT << 16, ids.DESC_AVAIL << 16 | ids.DESC_WRITE << 16)
    registers = [
        *((mmio.STATUS, value) for value in STATUS),
        (mmio.DRIVER_FEATURES_SEL, 1),
        (mmio.DRIVER_FEATURES, features),
        (mmio.STATUS, STATUS[1] | ids.FEATURES_OK),
        (mmio.QUEUE_SEL, 0),
        (mmio.QUEUE_NUM, 8),
        (mmio.QUEUE_DESC_LOW, DESCRIPTORS),
        (mmio.QUEUE_DRIVER_LOW, DRIVER),
        (mmio.QUEUE_DEVICE_LOW, DEVICE),
        (mmio.QUEUE_READY, 1),
        (mmio.STATUS, STATUS[1] | ids.FEATURES_OK | ids.DRIVER_OK),
    ]
    memory = [
        (TEXT, int.from_bytes(b"abcd", "little")),
        (DESCRIPTORS, TEXT),
        (DESCRIPTORS + 8, 4),
        (DESCRIPTORS + 12, flags[0] if packed else ids.DESC_NEXT | 1 << 16),
        (DESCRIPTORS + 16, ANSWER),
        (DESCRIPTORS + 24, 4),
        (DESCRIPTORS + 28, flags[1] if packed else ids.DESC_WRITE),
        (DRIVER + 4, 0),
        (DRIVER, 0 if packed else 1 << 16),
    ]
    return [(VIRTIO_MMIO_BASE + register, value) for register, value in registers] + memory


def program(packed: bool) -> str:
    table = "\n".join(f".long {address:#x}, {value:#x}" for address, value in stores(packed))
    split_used = f"cmp word ptr [{DEVICE + 2:#x}], 1\n jne 3b"
    packed_used = f"test word ptr [{DESCRIPTORS + 14:#x}], 0x8000\n jz 3b"
    return f"""
        mov esi, offset table
    1:  lodsd
        test eax, eax
        jz 2f
        mov edi, eax
        movsd
        jmp 1b
    2:  mov dword ptr [{VIRTIO_MMIO_BASE + mmio.QUEUE_NOTIFY:#x}], 0
    3:  pause
        {packed_used if packed else split_used}
    4:  cmp dword ptr [{VIRTIO_MMIO_BASE + mmio.INTERRUPT_STATUS:#x}], 1
        jne 4b
        mov dword ptr [{VIRTIO_MMIO_BASE + mmio.INTERRUPT_ACK:#x}], 1
        cmp dword ptr [{VIRTIO_MMIO_BASE + mmio.INTERRUPT_STATUS:#x}], 0
        jne 9f
        cmp dword ptr [{ANSWER:#x}], {int.from_bytes(b"ABCD", "little"):#x}
        jne 9f
        {tiny.exit(0)}
    9:  {tiny.exit(1)}
        .balign 4
    table:
        {table}
        .long 0
    """


class Counting(Upper):
    handled = 0

    def handle(self, queue):
        self.handled += 1
        super().handle(queue)


def run(directory: Path, packed: bool, backend: Selection) -> None:
    device = Counting(transport="mmio")
    image = tiny.image(directory, program(packed), 32)
    machine = pyhv.Machine(image, format="flat", memory="4M", devices=[device])
    pyhv.run(machine, backend=backend, timeout=30).check()
    assert device.handled == 1


def test_split(tmp_path: Path, backend: Selection) -> None:
    run(tmp_path, False, backend)


def test_packed(tmp_path: Path, backend: Selection) -> None:
    run(tmp_path, True, backend)
