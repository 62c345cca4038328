"""Dirty tracking: which pages were written since the last look; a superset of the truth is allowed."""

from collections.abc import Iterator

import pytest

from pyhv.errors import ConfigError
from pyhv.hv.api import Hypervisor
from pyhv.hv.config import VmConfig

from .bench import CODE, Bench

AGAIN = "again: mov eax, [0x4000]; mov dword ptr [eax], 1; out 0xe9, al; jmp again"
MAY_APPEAR = {CODE, 0x2000, 0x3000, 0x4000, 0x7000, 0x8000}
"""Pages that the processor reads or executes: a backend may report them."""


@pytest.fixture(params=["bitmap", "ring"])
def tracked(request: pytest.FixtureRequest, backend: Hypervisor) -> Iterator[Bench]:
    """A bench whose RAM is tracked, by bitmap or by ring."""
    capabilities = backend.capabilities
    if request.param == "ring" and not capabilities.dirty_ring:
        pytest.skip("the backend has no dirty rings")
    if request.param == "bitmap" and not capabilities.dirty_log:
        pytest.skip("the backend has no dirty log")
    with Bench(backend, VmConfig(dirty_ring=4096 if request.param == "ring" else 0)) as bench:
        bench.load(AGAIN)
        bench.vm.set_dirty_logging(bench.ram, True)
        bench.vm.dirty_pages(bench.ram)
        yield bench


def write_pages(bench: Bench, *addresses: int) -> None:
    """Let the guest write to these addresses."""
    for address in addresses:
        bench.ram.buffer[0x4000:0x4004] = address.to_bytes(4, "little")  # behind the observers' back
        bench.output(1)


def test_pages_that_the_guest_wrote(tracked: Bench) -> None:
    write_pages(tracked, 0x10_0000, 0x15_0008, 0x1F_FFFC)
    pages = tracked.vm.dirty_pages(tracked.ram)
    assert pages == sorted(pages)
    assert {0x10_0000, 0x15_0000, 0x1F_F000} <= set(pages) <= {0x10_0000, 0x15_0000, 0x1F_F000} | MAY_APPEAR


def test_a_look_clears_unless_told_otherwise(tracked: Bench) -> None:
    write_pages(tracked, 0x10_0000)
    assert 0x10_0000 in tracked.vm.dirty_pages(tracked.ram, clear=False)
    assert 0x10_0000 in tracked.vm.dirty_pages(tracked.ram)
    assert 0x10_0000 not in tracked.vm.dirty_pages(tracked.ram)
    write_pages(tracked, 0x10_0000)
    assert 0x10_0000 in tracked.vm.dirty_pages(tracked.ram)


def test_writes_of_the_vmm_count(tracked: Bench) -> None:
    tracked.vm.memory.write(0x12_0FFF, b"ab")
    tracked.vm.memory.view(0x13_0000, 16, write=True)
    assert {0x12_0000, 0x12_1000, 0x13_0000} <= set(tracked.vm.dirty_pages(tracked.ram))
    assert 0x12_0000 not in tracked.vm.dirty_pages(tracked.ram)


def test_reads_of_the_vmm_do_not(tracked: Bench) -> None:
    tracked.vm.memory.read(0x12_0000, 4096)
    assert 0x12_0000 not in tracked.vm.dirty_pages(tracked.ram)


def test_only_the_region_that_was_asked_about(tracked: Bench) -> None:
    other = tracked.vm.add_memory(0x40_0000, 0x10000)
    tracked.vm.set_dirty_logging(other, True)
    write_pages(tracked, 0x40_3000)
    assert 0x40_3000 in tracked.vm.dirty_pages(other)
    assert 0x40_3000 not in tracked.vm.dirty_pages(tracked.ram)


def test_tracking_that_was_switched_off(tracked: Bench) -> None:
    tracked.vm.set_dirty_logging(tracked.ram, False)
    with pytest.raises(ConfigError):
        tracked.vm.dirty_pages(tracked.ram)
    tracked.vm.set_dirty_logging(tracked.ram, True)
    write_pages(tracked, 0x11_0000)
    assert 0x11_0000 in tracked.vm.dirty_pages(tracked.ram)


def test_every_page_of_many(tracked: Bench) -> None:
    wanted = list(range(0x10_0000, 0x18_0000, 0x1000))
    write_pages(tracked, *wanted)
    assert set(wanted) <= set(tracked.vm.dirty_pages(tracked.ram))
