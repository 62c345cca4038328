"""Devices that users write: what they are called with, what they may do, and what happens when they break."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

import pyhv
from pyhv.hv.select import Selection

PATIENCE = 30.0
DOORBELL = 0xD000_0000


class Doorbell(pyhv.MmioDevice):
    """Remembers accesses; reads give a pattern by offset."""

    address = DOORBELL
    length = 0x1000

    def __init__(self, width: int = 8) -> None:
        self.width = width
        self.seen: list[tuple[Any, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.seen.append(("r", offset, size))
        return int.from_bytes(bytes((offset + i) & 0xFF for i in range(size)), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.seen.append(("w", offset, size, value))


class Register(pyhv.PioDevice):
    port = 0x600 + 0x200
    length = 4

    def __init__(self) -> None:
        self.value = 0
        self.resets = 0

    def read(self, offset: int, size: int) -> int:
        return (self.value >> 8 * offset) & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value << 8 * offset

    def reset(self) -> None:
        self.value = 0
        self.resets += 1


Run = Callable[..., pyhv.Result]


@pytest.fixture
def run(tmp_path: Path, backend: Selection) -> Run:
    """Run a few instructions with devices."""

    def call(source: str, *devices: pyhv.Device, bits: int = 32, **fields: Any) -> pyhv.Result:
        image = tiny.image(tmp_path, source, bits)
        machine = pyhv.Machine(image, format="flat", memory="4M", devices=devices, **fields)
        return pyhv.run(machine, backend=backend, timeout=PATIENCE)

    return call


def test_mmio(run: Run) -> None:
    device = Doorbell()
    source = (
        f"mov ebx, {DOORBELL:#x}\n mov dword ptr [ebx + 8], 0x12345678\n mov byte ptr [ebx + 3], 0x9a\n"
        "mov ax, [ebx + 0x10]\n cmp ax, 0x1110\n jne 9f\n mov eax, [ebx + 0xffc]\n cmp eax, 0xfffefdfc\n jne 9f\n"
        f"{tiny.exit(0)}\n9: {tiny.exit(1)}"
    )
    run(source, device).check()
    assert device.seen == [("w", 8, 4, 0x12345678), ("w", 3, 1, 0x9A), ("r", 0x10, 2), ("r", 0xFFC, 4)]


def test_mmio_of_8_bytes_is_split_for_a_narrow_device(run: Run) -> None:
    source = (
        f"mov ebx, {DOORBELL:#x}\n mov rax, 0x1122334455667788\n mov [rbx], rax\n mov rax, [rbx + 8]\n"
        f"mov rcx, 0x0f0e0d0c0b0a0908\n cmp rax, rcx\n jne 9f\n {tiny.exit(0)}\n9: {tiny.exit(1)}"
    )
    for width, seen in (
        (8, [("w", 0, 8, 0x1122334455667788), ("r", 8, 8)]),
        (4, [("w", 0, 4, 0x55667788), ("w", 4, 4, 0x11223344), ("r", 8, 4), ("r", 12, 4)]),
    ):
        device = Doorbell(width)
        run(source, device, bits=64).check()
        assert device.seen == seen


def test_ports(run: Run) -> None:
    device = Register()
    source = (
        "mov dx, 0x800\n mov eax, 0xcafef00d\n out dx, eax\n inc dx\n in al, dx\n cmp al, 0xf0\n jne 9f\n"
        f"{tiny.exit(0)}\n9: {tiny.exit(1)}"
    )
    run(source, device).check()
    assert device.value == 0xCAFEF00D


def test_a_reset_reaches_devices(run: Run) -> None:
    device = Register()
    source = (
        "mov al, 0x50\n out 0x70, al\n in al, 0x71\n inc al\n mov bl, al\n out 0x71, al\n cmp bl, 2\n je 1f\n"
        "mov dx, 0x800\n mov al, 7\n out dx, al\n mov dx, 0xcf9\n mov al, 6\n out dx, al\n hlt\n"
        f"1: mov dx, 0x800\n in al, dx\n out 0xf4, al\n{tiny.HALT}"
    )
    run(source, device, on_reset="restart").check()
    assert device.resets == 1


class Msrs(pyhv.MsrDevice):
    indices = (0x4000_1234, 0x4000_1235)

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []

    def rdmsr(self, index: int) -> int | None:
        return 0x1_0000_0002 if index == 0x4000_1234 else None

    def wrmsr(self, index: int, value: int) -> bool:
        self.written.append((index, value))
        return index == 0x4000_1234


GATE = """
    lidt [idt_pointer]
    mov eax, offset handler
    mov edi, 0x9000 + VECTOR * 16
    mov [rdi], ax
    mov word ptr [rdi + 2], 24
    mov word ptr [rdi + 4], 0x8e00
    mov word ptr [rdi + 6], 0
    mov qword ptr [rdi + 8], 0
    xor ebp, ebp
    jmp begin
idt_pointer: .word 0xfff
    .quad 0x9000
"""
GP_HANDLER = (
    GATE.replace("VECTOR", "13")
    + """
handler: inc ebp
    add rsp, 8
    mov [rsp], rsi
    iretq
begin:
"""
)
"""Counts #GP in EBP and goes on at RSI (long mode: what emulates ring 0 has no 32-bit IRET)."""


def test_msrs(run: Run, backend: Selection) -> None:
    if not backend.hypervisor.capabilities.msr_exits:
        pytest.skip(f"{backend.name} cannot route MSRs to user space")
    device = Msrs()
    source = (
        f"{GP_HANDLER} mov ecx, 0x40001234\n rdmsr\n cmp eax, 2\n jne 9f\n cmp edx, 1\n jne 9f\n"
        "mov eax, 5\n mov edx, 6\n wrmsr\n"
        "inc ecx\n mov esi, offset 1f\n rdmsr\n jmp 9f\n"
        "1: mov esi, offset 2f\n wrmsr\n jmp 9f\n"
        f"2: cmp ebp, 2\n jne 9f\n {tiny.exit(0)}\n9: {tiny.exit(1)}"
    )
    result = run(source, device, bits=64)
    result.check()
    assert device.written[0] == (0x4000_1234, 0x6_0000_0005)
    assert device.written[1][0] == 0x4000_1235
    assert (result.exits["Rdmsr"], result.exits["Wrmsr"]) == (2, 2)


class Ringer(pyhv.MmioDevice):
    """Interrupts when it is written to: by line for offset 0, by message for offset 4."""

    address = DOORBELL
    length = 8

    def attach(self, platform: pyhv.Platform) -> None:
        super().attach(platform)
        self.line = platform.line(5)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.line.set(bool(value))
        else:
            self.platform.send_msi(pyhv.Msi(0xFEE0_0000, value))


INTERRUPT = (
    GATE.replace("VECTOR", "0x45")
    + """
handler: inc ebp
    mov dword ptr [rbx], 0
    mov dword ptr [r8 + 0xb0], 0
    iretq
begin:
    mov ebx, 0xd0000000
    mov r8d, 0xfee00000
    mov r9d, 0xfec00000
    mov dword ptr [r8 + 0xf0], 0x1ff
"""
)


def wait_for(count: int) -> str:
    """Halt until the handler has run so often."""
    return f"1: sti\n hlt\n cli\n cmp ebp, {count}\n jne 1b\n"


def test_an_interrupt_by_line(run: Run) -> None:
    """GSI 5 through the I/O APIC, level-triggered, vector 0x45."""
    source = (
        f"{INTERRUPT} mov dword ptr [r9], 0x1b\n mov dword ptr [r9 + 16], 0\n"
        "mov dword ptr [r9], 0x1a\n mov dword ptr [r9 + 16], 0x8045\n"
        f"mov dword ptr [rbx], 1\n {wait_for(1)} mov dword ptr [rbx], 1\n {wait_for(2)} {tiny.exit(0)}"
    )
    run(source, Ringer(), bits=64).check()


def test_an_interrupt_by_message(run: Run) -> None:
    run(f"{INTERRUPT} mov dword ptr [rbx + 4], 0x45\n {wait_for(1)} {tiny.exit(0)}", Ringer(), bits=64).check()


class Copier(pyhv.PioDevice):
    """Reverses 4 bytes of memory at the address written to it; tells the clock when read."""

    port = 0x800
    length = 4
    times: list[int]

    def attach(self, platform: pyhv.Platform) -> None:
        super().attach(platform)
        self.times = []

    def read(self, offset: int, size: int) -> int:
        self.times.append(self.platform.clock.now_ns())
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        memory = self.platform.memory
        memory.write(value, memory.read(value, 4)[::-1])


def test_a_device_reaches_memory_and_clock(run: Run) -> None:
    device = Copier()
    source = (
        "mov dword ptr [0x9000], 0x11223344\n mov dx, 0x800\n in eax, dx\n mov eax, 0x9000\n out dx, eax\n in eax, dx\n"
        f"cmp dword ptr [0x9000], 0x44332211\n jne 9f\n {tiny.exit(0)}\n9: {tiny.exit(1)}"
    )
    run(source, device).check()
    assert len(device.times) == 2 and 0 <= device.times[0] <= device.times[1]


def test_a_device_that_reaches_beyond_memory(run: Run) -> None:
    result = run(f"mov dx, 0x800\n mov eax, 0x7ffffff0\n out dx, eax\n {tiny.exit(0)}", Copier())
    assert result.outcome is pyhv.Outcome.ERROR
    assert "guest physical [0x7ffffff0, 0x7ffffff4) is not memory" in result.detail


class Broken(pyhv.PioDevice):
    port = 0x800

    def read(self, offset: int, size: int) -> int:
        raise KeyError("the drawer is empty")


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_device_that_raises(run: Run, cpus: int) -> None:
    result = run(f"mov dx, 0x800\n in al, dx\n {tiny.exit(0)}", Broken(), cpus=cpus)
    assert (result.outcome, result.exit_code) == (pyhv.Outcome.ERROR, 125)
    assert "KeyError" in result.detail and "the drawer is empty" in result.detail
    with pytest.raises(pyhv.VmmError, match="the drawer is empty"):
        result.check()


class Wrong(pyhv.PioDevice):
    port = 0x800

    def __init__(self, value: Any) -> None:
        self.value = value

    def read(self, offset: int, size: int) -> Any:
        return self.value


def test_values_that_are_too_wide_are_cut(run: Run) -> None:
    source = f"mov dx, 0x800\n in al, dx\n cmp al, 0x34\n jne 9f\n {tiny.exit(0)}\n9: {tiny.exit(1)}"
    run(source, Wrong(0x1234)).check()
    run(source, Wrong(0x34 - 256)).check()


@pytest.mark.parametrize("value", [None, "text", 1.5])
def test_values_that_are_no_integers_are_the_devices_error(run: Run, value: object) -> None:
    result = run(f"mov dx, 0x800\n in al, dx\n {tiny.exit(0)}", Wrong(value))
    assert result.outcome is pyhv.Outcome.ERROR and "TypeError" in result.detail


class Misplaced(pyhv.MmioDevice):
    name = "misplaced"


@pytest.mark.parametrize(
    ("address", "length", "says"),
    [
        (0xFEC0_0010, 4, "overlaps"),
        (1 << 52, 4, "outside"),
        (-4, 4, "outside"),
        (DOORBELL, 0, "outside"),
    ],
)
def test_a_device_that_does_not_fit(run: Run, address: int, length: int, says: str) -> None:
    device = Misplaced()
    device.address, device.length = address, length
    with pytest.raises(pyhv.ConfigError, match=f"misplaced: .*{says}"):
        run(tiny.exit(0), device)


def test_devices_over_the_machines_ports_and_each_other(run: Run) -> None:
    device = Register()
    device.port = 0x3F8
    with pytest.raises(pyhv.ConfigError, match=r"Register: port \[0x3f8, 0x3fc\) overlaps"):
        run(tiny.exit(0), device)
    with pytest.raises(pyhv.ConfigError, match=r"Register: .* overlaps Register"):
        run(tiny.exit(0), Register(), Register())


def test_a_line_that_is_none(run: Run) -> None:
    class NoLine(pyhv.Device):
        def attach(self, platform: pyhv.Platform) -> None:
            platform.line(24)

    with pytest.raises(pyhv.ConfigError, match="interrupt 24"):
        run(tiny.exit(0), NoLine())


def test_a_device_that_ends_the_run(run: Run) -> None:
    class Judge(pyhv.PioDevice):
        port = 0x800

        def write(self, offset: int, size: int, value: int) -> None:
            self.platform.control.power_off("the judge")

    result = run("mov dx, 0x800\n out dx, al\n" + tiny.HALT, Judge())
    assert (result.outcome, result.detail) == (pyhv.Outcome.POWER_OFF, "the judge")


def test_devices_that_are_no_list() -> None:
    with pytest.raises(pyhv.ConfigError, match="devices: 5 is not a list"):
        pyhv.Machine("kernel", devices=5)  # type: ignore[arg-type]
