"""bzImage: the zero page, where things go, and setup headers that lie."""

import bz2
import gzip
import lzma
import struct
import sys

import pytest
from boot_images import MIB, BzImage, Load, elf, guest_memory, split_memory

from pyhv import boot
from pyhv.boot.state import BootState
from pyhv.errors import BootError, CapabilityMissing, ConfigError
from pyhv.log import listen
from pyhv.memory import GuestMemory


def start(image: BzImage, *, size: int = 64 * MIB, **options) -> tuple[BootState, GuestMemory]:
    memory = guest_memory(size)
    return boot.load(memory, image.build(), cpus=1, ram_size=size, **options), memory


def test_entered_by_the_64_bit_protocol() -> None:
    image = BzImage()
    state, memory = start(image, cmdline="console=ttyS0")
    assert state.format == "bzimage"
    assert state.general.rip == MIB + 0x200
    assert state.system.efer == 0x500 and state.system.cr3 == state.notes["zero_page"] - 6 * 4096
    assert (state.system.cs.selector, state.system.ds.selector) == (0x10, 0x18)
    assert state.system.cs.l and state.system.cr0 & 1 << 31
    assert memory.read(MIB, image.size) == b"\x90" * image.size
    page = state.general.rsi
    built = image.build()
    header = bytearray(built[0x1F1 : 0x202 + built[0x201]])
    struct.pack_into("<B", header, 0x210 - 0x1F1, 0xFF)
    cmdline = memory.read_uint(page + 0x228, 4)
    struct.pack_into("<I", header, 0x228 - 0x1F1, cmdline)
    struct.pack_into("<I", header, 0x214 - 0x1F1, MIB)
    struct.pack_into("<H", header, 0x1FA - 0x1F1, 0xFFFF)
    assert memory.read(page + 0x1F1, len(header)) == header
    assert memory.read_cstring(cmdline) == b"console=ttyS0"
    assert memory.read(memory.read_uint(page + 0x70, 8), 8) == b"RSD PTR "
    assert memory.read_uint(page + 0x1EF, 1) == 0


def test_the_zero_page_has_the_memory_map() -> None:
    state, memory = start(BzImage())
    page = state.general.rsi
    count = memory.read_uint(page + 0x1E8, 1)
    entries = [struct.unpack("<QQI", memory.read(page + 0x2D0 + 20 * i, 20)) for i in range(count)]
    assert (0, 0x9FC00, 1) in entries and (MIB, 63 * MIB, 1) in entries and (0xE0000, 0x20000, 2) in entries
    assert memory.read_uint(page + 0x1E0, 4) == 63 * 1024


def test_the_initrd_goes_to_the_top_of_memory() -> None:
    state, memory = start(BzImage(), initrd=b"I" * 10000)
    page = state.general.rsi
    address, size = memory.read_uint(page + 0x218, 4), memory.read_uint(page + 0x21C, 4)
    assert (address, size) == (64 * MIB - 12288, 10000)
    assert memory.read(address, size) == b"I" * 10000


def test_the_initrd_respects_the_kernels_limit() -> None:
    state, _ = start(BzImage(initrd_max=0xFFFFFF), initrd=b"I" * 4096)
    assert state.notes["initrd"] == 16 * MIB - 4096


def test_the_initrd_goes_above_4_gib_when_only_there_is_room_and_the_kernel_can() -> None:
    memory, size = split_memory(64 * MIB)
    image = BzImage(initrd_max=2 * MIB, xloadflags=3).build()
    state = boot.load(memory, image, cpus=1, ram_size=size, initrd=b"I" * (2 * MIB))
    assert state.notes["initrd"] == (1 << 32) + 62 * MIB
    page = state.general.rsi
    assert memory.read_uint(page + 0xC0, 4) == 1
    with pytest.raises(BootError, match="no room for the initrd"):
        boot.load(
            memory, BzImage(initrd_max=2 * MIB, xloadflags=1).build(), cpus=1, ram_size=size, initrd=b"I" * 2 * MIB
        )


def test_an_initrd_that_is_too_large() -> None:
    with pytest.raises(BootError, match="no room for the initrd image"):
        start(BzImage(), initrd=bytes(64 * MIB))


def test_an_empty_initrd_is_none() -> None:
    state, memory = start(BzImage(), initrd=b"")
    assert memory.read_uint(state.general.rsi + 0x218, 8) == 0


def test_without_a_64_bit_entry_by_the_32_bit_protocol() -> None:
    for image in (BzImage(xloadflags=0), BzImage(version=0x20B, xloadflags=0xFF)):
        state, _ = start(image)
        assert state.general.rip == MIB
        assert state.system.efer == 0 and state.system.cr0 & 1 << 31 == 0
        assert (state.system.cs.selector, state.system.ds.selector) == (0x10, 0x18)
        assert state.general.rbp == state.general.rdi == state.general.rbx == 0


def test_the_32_bit_entry_moves_with_the_kernel() -> None:
    state, _ = start(BzImage(xloadflags=0, pref_address=32 * MIB, code32_start=0x100020))
    assert state.entry == 32 * MIB + 0x20


def test_an_old_protocol_loads_at_1_mib_with_255_bytes_of_command_line() -> None:
    image = BzImage(version=0x202, pref_address=1 << 60, cmdline_size=1 << 20, initrd_max=1)
    state, _ = start(image, cmdline="x" * 255, initrd=b"abc")
    assert state.image == (MIB, MIB + image.size)
    with pytest.raises(ConfigError, match=r"^cmdline: 256 bytes; this kernel takes at most 255"):
        start(image, cmdline="x" * 256)


def test_setup_sects_of_zero_mean_four() -> None:
    _, memory = start(BzImage(setup_sects=0))
    assert memory.read(MIB, 16) == b"\x90" * 16


def test_init_size_is_kept_free() -> None:
    state, _ = start(BzImage(init_size=40 * MIB), initrd=b"x" * MIB)
    assert state.notes["zero_page"] >= 41 * MIB or state.notes["zero_page"] < MIB
    assert state.image == (MIB, 41 * MIB)
    with pytest.raises(BootError, match=r"init_size ask for memory up to 81 MiB; the machine has 64 MiB"):
        start(BzImage(init_size=80 * MIB))


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (BzImage(version=0x201), "version 2.01: at least 2.02"),
        (BzImage(version=0xFFFF), "version 255.255"),
        (BzImage(loadflags=0), "loadflags"),
        (BzImage(boot_flag=0x1234), "boot_flag 0x1234 is not 0xaa55"),
        (BzImage(syssize=0x100000), "syssize says 16777216 bytes, but only 12288 follow"),
        (BzImage(pref_address=0x1000), "pref_address 0x1000"),
        (BzImage(pref_address=(1 << 64) - 4096), "pref_address and init_size"),
        (BzImage(pref_address=0x100001), "pref_address 0x100001"),
        (BzImage(init_size=0xFFFFFFFF), "pref_address and init_size"),
        (BzImage(xloadflags=1, size=0x200, payload_offset=0), "promise a 64-bit entry"),
        (BzImage(xloadflags=0, code32_start=0), "code32_start 0x0 is outside the kernel"),
        (BzImage(xloadflags=0, code32_start=0x104000), "code32_start 0x104000 is outside the kernel"),
    ],
)
def test_setup_headers_that_lie(image: BzImage, what: str) -> None:
    with pytest.raises(BootError, match=what) as caught:
        start(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [0x206, 0x22F, 0x231, 0x600])
def test_truncated_images(length: int) -> None:
    data = BzImage().build()[:length]
    with pytest.raises(BootError, match=r"truncated|outside the file"):
        boot.load(guest_memory(), data, cpus=1, ram_size=16 * MIB)


def test_setup_sects_outside_the_file() -> None:
    data = bytearray(BzImage().build())
    data[0x1F1] = 255
    with pytest.raises(BootError, match="setup_sects 255"):
        boot.load(guest_memory(), bytes(data), cpus=1, ram_size=16 * MIB)


VMLINUX = elf(64, 2 * MIB, [Load(2 * MIB, b"\xf4" * 5000, memsz=8192)])


def _lz4(data: bytes) -> bytes:
    """A legacy frame of one block of literals."""
    length = len(data) - 15
    block = b"\xf0" + b"\xff" * (length // 255) + bytes((length % 255,)) + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block


def _zstd(data: bytes) -> bytes:
    return pytest.importorskip("zstandard", reason="the 'zstandard' package is not installed").compress(data)


PACKERS = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "lz4": _lz4,
    "zstd": _zstd,
    "none": bytes,
}


@pytest.mark.parametrize("packing", PACKERS)
def test_unpacked_on_the_host_and_entered_directly(packing: str) -> None:
    payload = PACKERS[packing](VMLINUX) + struct.pack("<I", len(VMLINUX))
    state, memory = start(BzImage(payload=payload), unpack=True, cmdline="hi", initrd=b"rd")
    assert state.format == "bzimage"
    assert state.general.rip == 2 * MIB and state.system.cs.l
    assert memory.read(2 * MIB, 5000) == b"\xf4" * 5000
    assert memory.read_uint(state.general.rsi + 0x206, 2) == 0x20F
    assert memory.read_cstring(memory.read_uint(state.general.rsi + 0x228, 4)) == b"hi"


@pytest.mark.parametrize("packing", [p for p in PACKERS if p != "none"])
def test_a_damaged_payload_is_named(packing: str) -> None:
    payload = PACKERS[packing](VMLINUX)
    broken = payload[: len(payload) // 2] if packing != "lz4" else payload[:8] + b"\x00\x00\x00\x00"
    with pytest.raises(BootError, match="payload"):
        start(BzImage(payload=broken), unpack=True)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (BzImage(), "payload_length 0"),
        (BzImage(payload=b"what is this?"), "packing is not known"),
        (BzImage(payload=gzip.compress(b"no kernel")), "does not hold an ELF file"),
    ],
)
def test_payloads_that_cannot_be_unpacked(image: BzImage, what: str) -> None:
    with pytest.raises(BootError, match=what):
        start(image, unpack=True)


def test_a_payload_outside_the_kernel() -> None:
    data = bytearray(BzImage(payload=b"x").build())
    struct.pack_into("<II", data, 0x248, 0xFFFFFFFF, 0xFFFFFFFF)
    with pytest.raises(BootError, match="payload_offset and payload_length"):
        boot.load(guest_memory(), bytes(data), cpus=1, ram_size=16 * MIB, unpack=True)


def test_what_cannot_be_unpacked_here_unpacks_itself_if_it_may() -> None:
    told: list[tuple[str, dict[str, object]]] = []
    stop = listen(lambda name, **values: told.append((name, values)))
    try:
        state, memory = start(BzImage(), unpack=True, or_packed=True)
        with pytest.raises(BootError, match="no payload"):
            start(BzImage(), unpack=True)
    finally:
        stop()
    assert state.general.rip == MIB + 0x200 and memory.read(MIB, 16) == b"\x90" * 16
    assert [name for name, _ in told] == ["packed"] and "no payload" in str(told[0][1]["reason"])


def test_a_missing_library_leaves_the_unpacking_to_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    image = BzImage(payload=b"\x28\xb5\x2f\xfd" + bytes(100))
    state, _ = start(image, unpack=True, or_packed=True)
    assert state.general.rip == MIB + 0x200
    with pytest.raises(CapabilityMissing, match="install the 'zstandard' package"):
        start(image, unpack=True)
