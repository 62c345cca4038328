"""Memory slots: what a guest reads, writes and cannot write."""

import pytest

from pyhv.errors import ConfigError, GuestMemoryError
from pyhv.hv.api import Hypervisor
from pyhv.hv.exits import MmioRead, MmioWrite

from .bench import Bench
from .conftest import Maker


def test_fresh_memory_is_zero_and_the_guest_reads_what_the_vmm_wrote(bench: Bench) -> None:
    bench.vm.memory.write_uint(0x5000, 4, 0x12345678)
    bench.load("mov eax, [0x5000]; out 0xe9, eax; mov eax, [0x6000]; out 0xe9, eax; hlt")
    assert bench.output(2) == [0x12345678, 0]


def test_the_vmm_reads_what_the_guest_wrote(bench: Bench) -> None:
    bench.load("mov dword ptr [0x5000], 0xCAFEF00D; mov byte ptr [0x1FFFFF], 0x5A; out 0xe9, al; hlt")
    bench.output(1)
    assert bench.vm.memory.read_uint(0x5000, 4) == 0xCAFEF00D
    assert bench.vm.memory.read(0x1FFFFF, 1) == b"\x5a"


def test_a_read_only_slot_is_read_without_an_exit_and_written_with_one(backend: Hypervisor, bench: Bench) -> None:
    if not backend.capabilities.readonly_memory:
        pytest.skip("the backend has no read-only slots")
    rom = bench.vm.add_memory(0x40_0000, 0x1000, readonly=True, name="rom")
    bench.vm.memory.load(0x40_0000, b"\x11\x22\x33\x44")
    bench.load(
        "mov eax, [0x400000]; out 0xe9, eax; mov dword ptr [0x400000], 0xAABBCCDD; mov eax, [0x400000]; out 0xe9, eax"
    )
    assert bench.output(1) == [0x44332211]
    write = bench.expect(MmioWrite)
    assert (write.address, write.data) == (0x40_0000, bytes.fromhex("ddccbbaa"))
    assert bench.output(1) == [0x44332211]
    assert bytes(rom.buffer[:4]) == b"\x11\x22\x33\x44"
    with pytest.raises(GuestMemoryError):
        bench.vm.memory.write(0x40_0000, b"x")


def test_memory_that_is_added_and_removed_while_the_guest_lives(bench: Bench) -> None:
    bench.load("again: mov eax, [0x800000]; out 0xe9, eax; jmp again")
    read = bench.expect(MmioRead)
    assert (read.address, read.size) == (0x80_0000, 4)
    bench.vcpu.complete_read(b"\x01\0\0\0")
    assert bench.output(1) == [1]
    region = bench.vm.add_memory(0x80_0000, 0x1000)
    bench.vm.memory.write_uint(0x80_0000, 4, 2)
    assert bench.output(1) == [2]
    bench.vm.remove_memory(region)
    bench.expect(MmioRead)
    bench.vcpu.complete_read(b"\x03\0\0\0")
    assert bench.output(1) == [3]


def test_an_access_across_two_adjacent_regions(bench: Bench) -> None:
    bench.vm.add_memory(0x20_0000, 0x1000)
    bench.load("mov dword ptr [0x1FFFFE], 0x44332211; out 0xe9, al")
    bench.output(1)
    assert bench.vm.memory.read(0x1FFFFE, 4) == b"\x11\x22\x33\x44"
    assert [len(segment) for segment in bench.vm.memory.view(0x1FFFFE, 4)] == [2, 2]


@pytest.mark.parametrize(
    ("address", "size"),
    [(0x1000, 0x1000), (0x1F_F000, 0x2000), (0x30_0800, 0x1000), (0x30_0000, 0x800), (0x30_0000, 0)],
)
def test_ranges_that_overlap_or_are_not_whole_pages_are_refused(bench: Bench, address: int, size: int) -> None:
    with pytest.raises(ConfigError):
        bench.vm.add_memory(address, size)
    assert len(bench.vm.memory.regions) == 1


def test_memory_above_4_gib(make: Maker) -> None:
    bench = make()
    bench.vm.add_memory(1 << 32, 0x20_0000, name="high")
    bench.vm.memory.write_uint((1 << 32) + 0x123000, 8, 0x1122334455667788)
    bench.load("nop", mode=64)
    memory = bench.vm.memory
    memory.write_uint(0x101000 + 8, 8, 0x104000 | 3)  # the second GiB of linear addresses
    memory.write_uint(0x104000, 8, 1 << 32 | 0x83)
    bench.load(
        "mov rbx, 0x40123000; mov rax, [rbx]; out 0xe9, eax; shr rax, 32; out 0xe9, eax; mov [rbx], rbx; out 0xe9, al",
        mode=64,
        at=0x1800,
    )
    assert bench.output(2) == [0x55667788, 0x11223344]
    bench.output(1)
    assert memory.read_uint((1 << 32) + 0x123000, 8) == 0x40123000
