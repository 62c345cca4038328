"""Programs from Debian's packages that run on the bare machine: memtest86+ directly, iPXE by SeaBIOS."""

from pathlib import Path

import pytest
import tiny

import pyhv
from pyhv.hv.select import Selection

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "build" / "kernels"
BIOSES = ["bios.bin", "bios-256k.bin"]
TIME = 120


def existing(name: str) -> Path:
    path = KERNELS / name
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: run `make kernels`")
    return path


@pytest.mark.parametrize("name", ["x64.bin", "ia32.bin"])
def test_memtest_tests(name: str, sim: Selection) -> None:
    machine = pyhv.Machine(existing(f"memtest86+/{name}"), cmdline="console=ttyS0,115200", memory="16M")
    with pyhv.start(machine, backend=sim) as vm:
        vm.console.expect(r"Memtest86\+ v\d", timeout=TIME)
        vm.console.expect("Address test, walking ones", timeout=TIME)


def test_ipxe_comes_up(sim: Selection) -> None:
    firmware = existing("seabios/bios-256k.bin")
    machine = pyhv.Machine(existing("ipxe/ipxe.lkrn"), firmware=firmware, memory="32M")
    with pyhv.start(machine, backend=sim) as vm:
        vm.console.expect(r"SeaBIOS \(version", timeout=TIME)
        vm.console.expect(r"iPXE initialising devices\.+ok", timeout=TIME)
        vm.console.expect("Open Source Network Boot Firmware", timeout=TIME)


@pytest.mark.parametrize("bios", BIOSES)
def test_a_boot_sector_calls_the_bios(bios: str, tmp_path: Path, sim: Selection) -> None:
    """INT 0x10 prints on the console, INT 0x15 gives the memory map, INT 0x16 hears what is typed."""
    text = "".join(f"mov ax, {0x0E00 | byte}\n mov bx, 7\n int 0x10\n" for byte in b"type a key\r\n")
    source = f"""
        xor ax, ax
        mov ds, ax
        mov es, ax
        {text}
        mov ah, 0
        int 0x16
        cmp al, 'k'
        jne wrong
        mov eax, 0xe820
        xor ebx, ebx
        mov di, 0x9000
        mov ecx, 20
        mov edx, 0x534d4150
        int 0x15
        jc wrong
        cmp eax, 0x534d4150
        jne wrong
        cmp dword ptr [0x9010], 1
        jne wrong
        {tiny.exit(0)}
    wrong:
        {tiny.exit(3)}
    """
    machine = pyhv.Machine(
        tiny.image(tmp_path, source), format="flat", firmware=existing(f"seabios/{bios}"), memory="16M"
    )
    with pyhv.start(machine, backend=sim) as vm:
        vm.console.expect("type a ke", timeout=TIME)
        vm.console.send("k")
        result = vm.wait(TIME)
    assert result.ok and result.guest_status == 0, result.report()


def test_ipxe_alone_is_told_what_it_lacks() -> None:
    with pytest.raises(pyhv.ConfigError, match=r"ipxe.lkrn': .* the image needs a BIOS \(--firmware\)"):
        pyhv.Vm(pyhv.Machine(existing("ipxe/ipxe.lkrn")), backend="sim")
