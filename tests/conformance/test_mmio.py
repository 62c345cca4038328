"""Memory-mapped I/O: loads and stores of every size to addresses that no memory backs."""

import pytest

from pyhv.hv.exits import MmioRead, MmioWrite

from .bench import Bench

DEVICE = 0xC000_0000


@pytest.mark.parametrize(("register", "size"), [("al", 1), ("ax", 2), ("eax", 4), ("rax", 8)])
def test_stores(bench: Bench, register: str, size: int) -> None:
    bench.load(f"mov rax, 0x8877665544332211; mov ebx, {DEVICE + 8}; mov [rbx], {register}; hlt", mode=64)
    assert bench.expect(MmioWrite) == MmioWrite(DEVICE + 8, bytes.fromhex("1122334455667788")[:size])


@pytest.mark.parametrize(
    ("instruction", "size", "result"),
    [
        ("mov al, [rbx]", 1, 0x88776655443322F1),
        ("mov ax, [rbx]", 2, 0x887766554433F2F1),
        ("mov eax, [rbx]", 4, 0xF4F3F2F1),
        ("mov rax, [rbx]", 8, 0xF8F7F6F5F4F3F2F1),
        ("movzx eax, byte ptr [rbx]", 1, 0xF1),
        ("movzx eax, word ptr [rbx]", 2, 0xF2F1),
        ("movsx eax, byte ptr [rbx]", 1, 0xFFFFFFF1),
        ("movsx rax, word ptr [rbx]", 2, 0xFFFFFFFFFFFFF2F1),
    ],
)
def test_loads(bench: Bench, instruction: str, size: int, result: int) -> None:
    code = f"mov rax, 0x8877665544332211; mov ebx, {DEVICE}; {instruction}; out 0xe9, eax; shr rax, 32; out 0xe9, eax"
    bench.load(code, mode=64)
    assert bench.expect(MmioRead) == MmioRead(DEVICE, size)
    bench.vcpu.complete_read(bytes.fromhex("f1f2f3f4f5f6f7f8")[:size])
    assert bench.output(2) == [result & 0xFFFFFFFF, result >> 32]


def test_a_read_modify_write_reads_then_writes(bench: Bench) -> None:
    bench.load(f"or dword ptr [{DEVICE}], 0x80; hlt")
    assert bench.expect(MmioRead) == MmioRead(DEVICE, 4)
    bench.vcpu.complete_read(b"\x01\0\0\0")
    assert bench.expect(MmioWrite) == MmioWrite(DEVICE, b"\x81\0\0\0")


def test_immediate_stores_and_string_stores(bench: Bench) -> None:
    bench.load(f"mov byte ptr [{DEVICE}], 0x42; mov edi, {DEVICE + 16}; mov ecx, 3; mov eax, 0x99; cld; rep stosd")
    assert bench.expect(MmioWrite) == MmioWrite(DEVICE, b"\x42")
    writes = [bench.expect(MmioWrite) for _ in range(3)]
    assert writes == [MmioWrite(DEVICE + 16 + 4 * i, b"\x99\0\0\0") for i in range(3)]


def test_a_store_across_a_page_boundary_arrives_whole(bench: Bench) -> None:
    bench.load(f"mov dword ptr [{DEVICE + 0xFFE}], 0x44332211; hlt")
    parts: dict[int, int] = {}
    while len(parts) < 4:
        write = bench.expect(MmioWrite)
        parts.update({write.address + i: byte for i, byte in enumerate(write.data)})
    assert parts == {DEVICE + 0xFFE + i: 0x11 * (i + 1) for i in range(4)}


def test_a_copy_from_a_device_to_memory(bench: Bench) -> None:
    bench.load(f"mov esi, {DEVICE}; mov edi, 0x5000; mov ecx, 4; cld; rep movsb; out 0xe9, al")
    given = 0
    while given < 4:
        read = bench.expect(MmioRead)
        assert read.address == DEVICE + given
        bench.vcpu.complete_read(bytes(0x61 + given + i for i in range(read.size)))
        given += read.size
    bench.output(1)
    assert bench.vm.memory.read(0x5000, 4) == b"abcd"
