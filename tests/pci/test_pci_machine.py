"""PCI in a whole machine: made when it is touched, set up as firmware would, whole again after a reset, used by Linux."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import pyhv
from pyhv.hv.select import Selection
from pyhv.linux.cpio import CpioArchive
from pyhv.linux.modules import ModuleTree
from pyhv.pci import BarKind, PciFunction

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "build" / "kernels" / "cloud"
BUSYBOX = Path("/bin/busybox")
MODULES = ("virtio_pci", "virtio_rng")
TIME = 120

INIT = """\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules); do insmod $module; done
for device in /sys/bus/pci/devices/*; do
    echo "$device $(cat $device/vendor $device/device $device/class | tr '\\n' ' ')"
done
dd if=/dev/hwrng of=/random bs=16 count=4 2>/dev/null
echo "random bytes: $(wc -c < /random)"
sed -n 's/^ *\\([0-9]*\\): *\\([0-9]*\\) .* \\([^ ]*\\) *virtio0\\(.*\\)$/interrupts of virtio0\\4: \\2/p' /proc/interrupts
echo "done"
poweroff -f
"""


class Function(pyhv.Device):
    """A range of memory and one of ports on the bus."""

    def attach(self, platform):
        super().attach(platform)
        self.function = PciFunction(vendor=0x1234, device=0x5678, class_code=0xFF0000, interrupt_pin=1)
        self.function.add_bar(0, 0x1000, self)
        self.function.add_bar(1, 16, self, kind=BarKind.IO)
        platform.pci.add(self.function)

    def read(self, offset, size):
        return 0x5A

    def write(self, offset, size, value):
        pass


def config(register: int) -> str:
    """EAX: the register of slot 1."""
    return f"mov dx, 0xcf8\n mov eax, {0x8000_0800 | register:#x}\n out dx, eax\n mov dx, 0xcfc\n in eax, dx"


def test_a_guest_that_does_not_touch_it_has_it_not(guest) -> None:
    code = (
        "import sys, pyhv; pyhv.run(pyhv.Machine(sys.argv[1]), backend='sim').check();"
        "sys.exit(any('pyhv.pci' in name for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, guest("hello")], check=True, stdout=subprocess.DEVNULL, timeout=60)


def test_a_guest_finds_the_host_bridge_in_both_ways(tmp_path: Path, backend: Selection) -> None:
    image = tiny.image(
        tmp_path,
        f"""
        mov dx, 0xcf8
        mov eax, 0x80000000
        out dx, eax
        in eax, dx
        cmp eax, 0x80000000
        jne 9f
        mov dx, 0xcfc
        in eax, dx
        cmp eax, 0x00081b36
        jne 9f
        cmp eax, [0xe0000000]
        jne 9f
        cmp dword ptr [0xe0008000], -1
        jne 9f
        mov dx, 0xcf9
        mov al, 6
        out dx, al
        hlt
    9:  {tiny.exit(1)}
        """,
        32,
    )
    result = pyhv.run(pyhv.Machine(image, format="flat", memory="4M"), backend=backend, timeout=30)
    result.check()
    assert result.outcome is pyhv.Outcome.RESET and result.unclaimed == {}


def test_ranges_are_there_at_the_start_and_again_after_a_reset(tmp_path: Path, backend: Selection) -> None:
    """The first life moves a range away and resets; what it left in CMOS tells the second one to look."""
    check = f"""
        {config(0x10)}
        cmp eax, 0xe1000000
        jne 9f
        cmp byte ptr [0xe1000ffc], 0x5a
        jne 9f
        {config(0x14)}
        cmp eax, 0xc001
        jne 9f
        mov dx, 0xc008
        in al, dx
        cmp al, 0x5a
        jne 9f
        {config(0x3C)}
        cmp ax, 0x010b
        jne 9f
    """
    image = tiny.image(
        tmp_path,
        f"""
        {check}
        mov al, 0x40
        out 0x70, al
        in al, 0x71
        cmp al, 1
        je 8f
        mov al, 1
        out 0x71, al
        {config(0x10)}
        mov eax, 0xe2000000
        out dx, eax
        mov dx, 0xcf9
        mov al, 6
        out dx, al
        hlt
    8:  {tiny.exit(0)}
    9:  {tiny.exit(1)}
        """,
        32,
    )
    machine = pyhv.Machine(image, format="flat", memory="4M", devices=[Function()], on_reset="restart")
    result = pyhv.run(machine, backend=backend, timeout=30)
    result.check()
    assert result.unclaimed == {}


def test_firmware_finds_them_not_placed(tmp_path: Path, sim: Selection) -> None:
    device, firmware = Function(), tmp_path / "bios.bin"
    firmware.write_bytes(bytes(0x1_0000))
    image = tiny.image(tmp_path, tiny.exit(0))
    with pyhv.Vm(pyhv.Machine(image, format="flat", firmware=firmware, devices=[device]), backend=sim):
        assert [bar.mapping for bar in device.function.bars.values()] == [None, None]
        assert device.function.config.get(0x10, 4) == 0


def test_a_bus_that_is_full_is_the_users_mistake(tmp_path: Path, sim: Selection) -> None:
    image = tiny.image(tmp_path, tiny.exit(0))
    with pytest.raises(pyhv.ConfigError, match="the PCI bus is full"):
        pyhv.Vm(pyhv.Machine(image, format="flat", devices=[Function() for _ in range(249)]), backend=sim)


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for path in (KERNEL / "vmlinuz", KERNEL / "modules", BUSYBOX):
        if not path.exists():
            pytest.skip(f"{path} is missing: `make kernels` fetches kernels, busybox-static is a package")
    archive = CpioArchive()
    for directory in ("bin", "dev", "proc", "sys", "lib"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    tree = ModuleTree(KERNEL / "modules")
    order = tree.load_order(MODULES)
    for path in order:
        archive.file(f"lib/{Path(path).name}", tree.read(path))
    archive.file("modules", "\n".join(f"/lib/{Path(path).name}" for path in order).encode())
    archive.file("init", INIT.encode(), 0o755)
    path = tmp_path_factory.mktemp("pci") / "initramfs.cpio.gz"
    path.write_bytes(gzip.compress(archive.to_bytes(), compresslevel=1))
    return path


def boot(initrd: Path, cmdline: str, sim: Selection, **fields: object) -> str:
    from pyhv.peripherals.entropy import Entropy

    machine = pyhv.Machine(
        KERNEL / "vmlinuz", initrd=initrd, cmdline=f"console=ttyS0 {cmdline}", devices=[Entropy(), Entropy()], **fields
    )
    with pyhv.start(machine, backend=sim) as vm:
        vm.console.expect(r"\ndone", timeout=TIME)
        return vm.console.text.replace("\r", "")


def interrupts(text: str) -> dict[str, int]:
    lines = [line.removeprefix("interrupts of ").split(": ") for line in text.splitlines() if "interrupts of" in line]
    return {name: int(count) for name, count in lines}


def check_devices(text: str) -> None:
    assert "/0000:00:00.0 0x1b36 0x0008 0x060000" in text
    for slot in (1, 2):
        assert f"/0000:00:0{slot}.0 0x1af4 0x1044 0x00ff00" in text
    assert "random bytes: 64" in text
    for word in ("ACPI Error", "ACPI BIOS Error", "Firmware Bug", "nobody cared", "can't claim", "no compatible"):
        assert word not in text


def test_linux_by_acpi_ecam_and_messages(initrd: Path, sim: Selection) -> None:
    text = boot(initrd, "", sim)
    check_devices(text)
    assert "PCI: MMCONFIG for domain 0000 [bus 00-00] at [mem 0xe0000000-0xe00fffff]" in text
    for window in ("[io  0xc000-0xffff window]", "[mem 0xe1000000-0xfdffffff window]", "[mem 0x100000000-0x4ffffffff"):
        assert f"root bus resource {window}" in text
    assert "BAR 0 [mem 0xe1000000-0xe1003fff 64bit]" in text
    found = interrupts(text)
    assert found["virtio0-input"] > 0 and "virtio0" not in found


def test_linux_by_ports_and_wires(initrd: Path, sim: Selection) -> None:
    text = boot(initrd, "pci=nomsi,nommconf", sim, memory="4G")
    check_devices(text)
    assert "PCI: Using configuration type 1 for extended access" in text and "PCI: MMCONFIG" not in text
    assert "[mem 0x140000000-0x53fffffff window]" in text
    assert interrupts(text)["virtio0"] > 0


def test_linux_without_acpi_by_the_8259s(initrd: Path, sim: Selection) -> None:
    """This kernel reads no MP table: it takes the IRQs from the interrupt line registers."""
    text = boot(initrd, "acpi=off", sim)
    check_devices(text)
    assert "Keep in PIC mode(8259)" in text
    assert interrupts(text)["virtio0"] > 0
