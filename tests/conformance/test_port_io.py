"""Port I/O: every size, immediate and register ports, string instructions."""

import pytest

from pyhv.errors import VmmError
from pyhv.hv.exits import PioIn, PioOut

from .bench import Bench


@pytest.mark.parametrize(("register", "size"), [("al", 1), ("ax", 2), ("eax", 4)])
@pytest.mark.parametrize(("port", "operand"), [(0xE9, "0xe9"), (0xFFF0, "dx")])
def test_out(bench: Bench, register: str, size: int, port: int, operand: str) -> None:
    bench.load(f"mov eax, 0x87654321; mov edx, {port}; out {operand}, {register}; hlt")
    assert bench.expect(PioOut) == PioOut(port, size, 1, bytes.fromhex("21436587")[:size])


@pytest.mark.parametrize(
    ("register", "size", "result"), [("al", 1, 0x876543FF), ("ax", 2, 0x8765EEFF), ("eax", 4, 0xCCDDEEFF)]
)
def test_in_changes_only_what_it_should(bench: Bench, register: str, size: int, result: int) -> None:
    bench.load(f"mov eax, 0x87654321; mov dx, 0x1234; in {register}, dx; out 0xe9, eax")
    assert bench.expect(PioIn) == PioIn(0x1234, size, 1)
    bench.vcpu.complete_read(bytes.fromhex("ffeeddcc")[:size])
    assert bench.output(1) == [result]


def test_an_answer_of_the_wrong_length_is_refused(bench: Bench) -> None:
    bench.load("in eax, 0x10; out 0xe9, eax")
    bench.expect(PioIn)
    with pytest.raises(VmmError):
        bench.vcpu.complete_read(b"\0\0")
    bench.vcpu.complete_read(b"\1\0\0\0")
    assert bench.output(1) == [1]


def test_real_mode(bench: Bench) -> None:
    bench.load("mov ax, cs; out 0xe9, ax; mov ax, 0x55aa; out 0xe9, ax", mode=16)
    assert bench.output(2) == [0, 0x55AA]


@pytest.mark.parametrize(("suffix", "size"), [("b", 1), ("w", 2), ("d", 4)])
def test_rep_outs_delivers_every_item_in_order(bench: Bench, suffix: str, size: int) -> None:
    data = bytes(range(48))
    bench.vm.memory.write(0x5000, data)
    bench.load(f"mov esi, 0x5000; mov ecx, {48 // size}; mov dx, 0x300; cld; rep outs{suffix}; out 0xe9, al")
    received = b""
    while len(received) < len(data):
        exit = bench.expect(PioOut)
        assert (exit.port, exit.size, len(exit.data)) == (0x300, size, size * exit.count)
        received += exit.data
    assert received == data
    bench.output(1)
    assert bench.vcpu.general.rcx == 0


@pytest.mark.parametrize(("suffix", "size"), [("b", 1), ("w", 2), ("d", 4)])
def test_rep_ins_stores_every_item_in_order(bench: Bench, suffix: str, size: int) -> None:
    data = bytes(range(100, 148))
    bench.load(f"mov edi, 0x5000; mov ecx, {48 // size}; mov dx, 0x300; cld; rep ins{suffix}; out 0xe9, al")
    given = 0
    while given < len(data):
        exit = bench.expect(PioIn)
        assert exit.port == 0x300 and exit.size == size and exit.count >= 1
        length = exit.size * exit.count
        bench.vcpu.complete_read(data[given : given + length])
        given += length
    bench.output(1)
    assert bench.vm.memory.read(0x5000, 48) == data
    assert bench.vcpu.general.rdi == 0x5030


def test_backwards_string_output(bench: Bench) -> None:
    bench.vm.memory.write(0x5000, b"ABCD")
    bench.load("mov esi, 0x5003; mov ecx, 4; mov dx, 0x300; std; rep outsb; out 0xe9, al")
    received = b""
    while len(received) < 4:
        received += bench.expect(PioOut).data
    assert received == b"DCBA"


def test_many_exits_in_a_row(bench: Bench) -> None:
    bench.load("xor eax, eax; again: out 0xe9, eax; inc eax; jmp again")
    assert bench.output(500) == list(range(500))
