"""PC firmware: where it lies, what it is offered, and the option ROM that boots a kernel from there."""

import struct
from pathlib import Path

import pytest
import synthetic_firmware
import tiny
from boot_images import MIB, BzImage, guest_memory, multiboot_elf
from conformance.asm import assemble
from hypothesis import given
from hypothesis import strategies as st

import pyhv
from pyhv.boot import acpi, acpi_loader, linux16, option_rom
from pyhv.boot.image import Image
from pyhv.boot.offer import Offer
from pyhv.boot.option_rom import RealModeEntry, Transfer
from pyhv.boot.pci_root import PciRoot
from pyhv.boot.request import Request
from pyhv.chipset import fw_cfg as keys
from pyhv.chipset.fw_cfg import FwCfg
from pyhv.errors import BootError, ConfigError
from pyhv.hv.select import Selection
from pyhv.memory import GuestMemory
from pyhv.vm import Vm

NO_PCI = PciRoot((1 << 32, 1 << 34))
KERNEL = bytes(range(256)) * 37
SETUP_CODE = f"""
    .code16
    mov ax, cs
    sub ax, 0x20
    mov bx, ds
    cmp ax, bx
    jne wrong
    mov bx, ss
    cmp ax, bx
    jne wrong
    cmp sp, 0xe000
    jne wrong
    pushf
    pop ax
    test ax, 0x200
    jnz wrong
    {tiny.say("setup ")}
    mov eax, ds:[0x228]
    shr eax, 4
    mov ds, ax
    xor si, si
    mov dx, 0x3f8
print:
    lodsb
    out dx, al
    test al, al
    jnz print
    {tiny.exit(0)}
wrong:
    {tiny.exit(3)}
"""
SETUP_SIZE = 3 * 512


def request(
    kernel: bytes, *, memory: int = 16 * MIB, cmdline: bytes = b"", initrd: bytes | None = None, modules: int = 0
) -> Request:
    image = Image(kernel, "image")
    return Request(guest_memory(MIB), image, initrd, cmdline, [(b"m", "m")] * modules, memory, 0, True)


def offer(kernel: bytes, format: str, load_address: int = 0x7C00, entry: int | None = None) -> Offer:
    return Offer(request(kernel), format, cpus=1, pci=NO_PCI, load_address=load_address, entry=entry)


def linux_image() -> bytes:
    """A bzImage whose setup code looks at its registers and prints its command line."""
    image = bytearray(BzImage(size=len(KERNEL), payload=KERNEL, payload_offset=0).build())
    code = assemble(SETUP_CODE, bits=32)
    image[0x268 : 0x268 + len(code)] = code
    assert 0x268 + len(code) <= SETUP_SIZE
    return bytes(image)


def run(machine: pyhv.Machine, backend: Selection) -> pyhv.Result:
    result = pyhv.run(machine, backend=backend, timeout=60)
    assert result.ok, result.report()
    return result


# In a machine


def test_a_flat_image_boots_with_a_bios_below_it(tmp_path: Path, backend: Selection) -> None:
    kernel = tiny.image(tmp_path, f"cmp dl, 0x80\n jne 1f\n{tiny.say('kernel')}{tiny.exit(0)}\n1:\n{tiny.exit(3)}")
    machine = pyhv.Machine(kernel, format="flat", firmware=synthetic_firmware.build(tmp_path), memory="2M")
    assert run(machine, backend).console == "Rw firmware kernel"


def test_a_bzimage_boots_by_its_setup_code(tmp_path: Path, backend: Selection) -> None:
    (tmp_path / "bzImage").write_bytes(linux_image())
    (tmp_path / "initrd").write_bytes(b"initrd" * 1000)
    machine = pyhv.Machine(
        tmp_path / "bzImage",
        initrd=tmp_path / "initrd",
        cmdline="one two",
        firmware=synthetic_firmware.build(tmp_path),
        memory="16M",
    )
    with Vm(machine, backend=backend) as vm:
        result = vm.run(60)
        assert result.ok and "setup one two\0" in result.console, result.report()
        assert vm.memory.read(0x10_0000, len(KERNEL)) == KERNEL
        address, size = struct.unpack("<II", vm.memory.read(linux16.SETUP_ADDRESS + 0x218, 8))
        assert vm.memory.read(address, size) == b"initrd" * 1000


def test_what_cannot_be_copied_is_a_failed_boot(tmp_path: Path, sim: Selection) -> None:
    """A transfer to where no memory is: the ROM gives the next boot device its turn, by INT 0x18."""
    kernel = tiny.image(tmp_path, tiny.exit(0))
    machine = pyhv.Machine(kernel, format="flat", firmware=synthetic_firmware.build(tmp_path), memory="2M")
    with Vm(machine, backend=sim) as vm:
        assert vm.boot.offer is not None
        nowhere = [Transfer(keys.KERNEL_DATA, 16, 0xD000_0000)]
        vm.boot.offer._rom = option_rom.build(nowhere, RealModeEntry(cs=0, ip=0x7C00, segment=0, sp=0x7C00))
        result = vm.run(60)
    assert result.guest_status == 9, result.report()


def test_it_starts_again_after_a_reset(tmp_path: Path, backend: Selection) -> None:
    kernel = tiny.image(
        tmp_path,
        "mov al, 0x50\n out 0x70, al\n in al, 0x71\n test al, al\n jnz again\n inc al\n out 0x71, al\n"
        f"mov dx, 0xcf9\n mov al, 6\n out dx, al\n{tiny.SPIN}again:\n{tiny.exit(0)}",
    )
    firmware = synthetic_firmware.build(tmp_path)
    machine = pyhv.Machine(kernel, format="flat", firmware=firmware, memory="2M", on_reset="restart")
    assert run(machine, backend).console.count("Rw firmware ") == 2


def test_the_firmware_is_not_ram(tmp_path: Path, sim: Selection) -> None:
    """fw_cfg reports the size of RAM alone, and the memory map leaves the ROM out."""
    source = (
        "mov dx, 0x510\n mov ax, 3\n out dx, ax\n inc dx\n in al, dx\n in al, dx\n in al, dx\n out 0xf4, al\n hlt\n"
    )
    firmware = synthetic_firmware.build(tmp_path, source)
    kernel = tiny.image(tmp_path, tiny.exit(0))
    result = pyhv.run(pyhv.Machine(kernel, format="flat", firmware=firmware, memory="2M"), backend=sim, timeout=60)
    assert result.guest_status == 2 * MIB >> 16, result.report()


def test_a_machine_with_firmware_is_a_document() -> None:
    machine = pyhv.Machine("k", firmware="bios.bin")
    assert pyhv.Machine.from_toml(machine.to_toml()) == machine
    assert machine != machine.replace(firmware=None)


@pytest.mark.parametrize(
    ("size", "complaint"),
    [(0, "0 bytes"), (100, "100 bytes; .* multiple of 4 KiB"), ((8 << 20) + 4096, "at most 8 MiB")],
)
def test_images_of_an_odd_size_are_refused(tmp_path: Path, sim: Selection, size: int, complaint: str) -> None:
    firmware = tmp_path / "bios.bin"
    firmware.write_bytes(bytes(size))
    kernel = tiny.image(tmp_path, tiny.exit(0))
    with pytest.raises(ConfigError, match=rf"^firmware: '.*bios.bin': .*{complaint}"):
        Vm(pyhv.Machine(kernel, format="flat", firmware=firmware), backend=sim)


def test_a_missing_image_is_named(tmp_path: Path, sim: Selection) -> None:
    kernel = tiny.image(tmp_path, tiny.exit(0))
    with pytest.raises(ConfigError, match=r"^firmware: '.*nowhere.bin': No such file"):
        Vm(pyhv.Machine(kernel, format="flat", firmware=tmp_path / "nowhere.bin"), backend=sim)


def test_unpacking_and_firmware_exclude_each_other(tmp_path: Path, sim: Selection) -> None:
    (tmp_path / "bzImage").write_bytes(linux_image())
    machine = pyhv.Machine(tmp_path / "bzImage", firmware=synthetic_firmware.build(tmp_path), unpack="yes")
    with pytest.raises(ConfigError, match=r"^unpack: firmware boots bzImages as they are"):
        Vm(machine, backend=sim)


# The option ROM


@given(
    st.lists(
        st.builds(Transfer, st.integers(0, 0x3FFF), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=40
    )
)
def test_the_rom_is_well_formed_and_lists_its_transfers(transfers: list[Transfer]) -> None:
    rom = option_rom.build(transfers, RealModeEntry(cs=1, ip=2, segment=3, sp=4))
    assert rom[:2] == b"\x55\xaa" and rom[2] * 512 == len(rom) and sum(rom) & 0xFF == 0
    pnp = int.from_bytes(rom[0x1A:0x1C], "little")
    header = rom[pnp : pnp + 32]
    assert header[:4] == b"$PnP" and header[5] * 16 == 32 and sum(header) & 0xFF == 0
    product, entry = (int.from_bytes(header[at : at + 2], "little") for at in (0x10, 0x1A))
    assert rom[product:].startswith(option_rom.PRODUCT)
    (requests,) = struct.unpack_from("<H", rom, entry + 5)
    for transfer in transfers:
        control, length, address = struct.unpack_from(">IIQ", rom, requests)
        assert (control, length, address) == (transfer.key << 16 | 0x0A, transfer.length, transfer.address)
        requests += 16
    assert rom[requests : requests + 4] == bytes(4)


# ACPI tables


def load_tables(files: dict[str, bytes], places: dict[str, int]) -> dict[str, bytearray]:
    """What a firmware does with the loader's commands."""
    blobs: dict[str, bytearray] = {}
    loader = files["etc/table-loader"]
    assert len(loader) % 128 == 0
    for start in range(0, len(loader), 128):
        command, first = struct.unpack_from("<I56s", loader, start)
        name = first.rstrip(b"\0").decode()
        if command == 1:
            assert name not in blobs
            blobs[name] = bytearray(files[name])
        elif command == 2:
            source, offset, size = struct.unpack_from("<56sIB", loader, start + 60)
            value = int.from_bytes(blobs[name][offset : offset + size], "little")
            assert value < len(files[source.rstrip(b"\0").decode()])
            value += places[source.rstrip(b"\0").decode()]
            blobs[name][offset : offset + size] = value.to_bytes(size, "little")
        else:
            assert command == 3
            at, begin, length = struct.unpack_from("<III", loader, start + 60)
            assert blobs[name][at] == 0
            blobs[name][at] = -sum(blobs[name][begin : begin + length]) & 0xFF
    return blobs


@pytest.mark.parametrize("cpus", [1, 4, 300])
def test_loaded_tables_are_those_that_are_built_in_place(cpus: int) -> None:
    files = acpi_loader.files(*acpi.build_below(1 << 20, cpus, NO_PCI))
    tables = acpi_loader.TABLES_FILE
    place, expected = acpi.build_below(0x7FF_0000, cpus, NO_PCI)
    loaded = load_tables(files, {tables: place, acpi_loader.RSDP_FILE: 0xF_5000})
    assert loaded[acpi_loader.RSDP_FILE] == expected[: acpi_loader.RSDP_SIZE]
    assert loaded[tables][acpi_loader.RSDP_SIZE :] == expected[acpi_loader.RSDP_SIZE :]


# What is offered, and what is not


def test_a_bzimage_is_under_the_keys_that_firmware_knows() -> None:
    image = linux_image()
    fw_cfg = FwCfg(memory=GuestMemory(), cpus=1)
    whole = request(image, cmdline=b"hello", initrd=b"initrd")
    Offer(whole, "bzimage", cpus=1, pci=NO_PCI, load_address=0, entry=None).install(fw_cfg)

    def item(key: int, length: int) -> bytes:
        fw_cfg._write_selector(0, 2, key)
        return bytes(fw_cfg._read_data(1, 1) for _ in range(length))

    assert struct.unpack("<I", item(0x08, 4)) == (len(KERNEL),)
    assert item(0x11, len(KERNEL)) == KERNEL
    assert struct.unpack("<I", item(0x17, 4)) == (SETUP_SIZE,)
    setup = item(0x18, SETUP_SIZE)
    assert setup[0x210] == 0xFF and setup[0x211] & 0x80
    assert struct.unpack_from("<I", setup, 0x228) == (linux16.CMDLINE_ADDRESS,)
    assert item(0x15, 6) == b"hello\0"
    assert item(0x12, 6) == b"initrd"
    assert item(0x0A, 4) == setup[0x218:0x21C]


def test_the_plan_keeps_the_kernel_and_the_firmware_clear_of_the_initrd() -> None:
    plan = linux16.plan(request(linux_image(), initrd=bytes(MIB)))
    assert plan.initrd_address % 4096 == 0
    assert MIB + len(KERNEL) <= plan.initrd_address <= 16 * MIB - linux16.FIRMWARE_SPARE - MIB


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"cmdline": b"x" * 300_000}, "^cmdline: 300000 bytes"),
        ({"memory": MIB}, "no room for the kernel"),
        ({"initrd": bytes(16 * MIB)}, "no room for the initrd"),
        ({"modules": 1}, "^modules: "),
    ],
)
def test_what_cannot_be_planned_is_said(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises((BootError, ConfigError), match=complaint):
        linux16.plan(request(linux_image(), **wrong))  # type: ignore[arg-type]


def test_other_kernels_need_no_firmware() -> None:
    with pytest.raises(ConfigError, match=r"^firmware: .* multiboot image; firmware boots bzImage and flat images"):
        offer(multiboot_elf(), "multiboot")


@pytest.mark.parametrize(
    ("address", "entry", "complaint"),
    [
        (0x500, None, "not in conventional memory"),
        (0x9_FFFF, None, "not in conventional memory"),
        (MIB, None, "not in conventional memory"),
        (0x7C00, 0x7C02, "outside the image"),
    ],
)
def test_flat_images_stay_in_conventional_memory(address: int, entry: int | None, complaint: str) -> None:
    with pytest.raises(BootError, match=complaint):
        offer(b"\xeb\xfe", "flat", address, entry)
