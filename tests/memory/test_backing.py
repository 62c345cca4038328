"""Host memory: sparse, aligned for large pages, given back; huge pages and the errors that say how to have them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.memory import MemoryBacking, MemoryRegion, allocate, backing

PLAIN = MemoryBacking()
MIB = 1 << 20


@pytest.fixture
def region() -> MemoryRegion:
    return allocate(0, 8 * MIB, PLAIN)


def test_fresh_memory_is_zero_and_writable(region: MemoryRegion) -> None:
    assert region.size == 8 * MIB and not any(region.buffer[: MIB // 4])
    region.buffer[5 * MIB] = 7
    assert region.buffer[5 * MIB] == 7
    assert os.pread(region.fd, 1, 5 * MIB) == b"\x07"
    region.close()


@pytest.mark.parametrize("address", [0, 0x1_0000_0000, 0x20_1000, 0xE_0000])
def test_host_addresses_suit_large_nested_pages(address: int) -> None:
    region = allocate(address, 4 * MIB, PLAIN)
    assert (region.host_address - address) % (2 * MIB) == 0
    region.close()


def test_only_what_is_touched_is_taken() -> None:
    region = allocate(0, 1 << 30, PLAIN)
    for offset in range(0, 64 * MIB, 4096):
        region.buffer[offset] = 1
    assert os.fstat(region.fd).st_blocks * 512 == 64 * MIB
    region.discard()
    assert os.fstat(region.fd).st_blocks == 0
    assert region.buffer[0] == 0
    region.close()


def _mapped(fd: int) -> bool:
    inode = os.fstat(fd).st_ino
    with open("/proc/self/maps") as maps:
        return any(line.split()[4] == str(inode) and "pyhv" in line for line in maps)


def test_closing_unmaps_and_closes(region: MemoryRegion) -> None:
    copy = os.dup(region.fd)
    assert _mapped(copy)
    fd = region.fd
    region.close()
    region.close()
    assert not _mapped(copy)
    with pytest.raises(OSError):
        os.fstat(fd)
    os.close(copy)


def test_a_view_that_outlives_its_region_keeps_its_memory(region: MemoryRegion) -> None:
    region.buffer[0:4] = b"keep"
    view = region.buffer[0:4]
    copy = os.dup(region.fd)
    region.close()
    assert bytes(view) == b"keep" and _mapped(copy)
    del view
    assert not _mapped(copy)
    os.close(copy)


@pytest.mark.parametrize(
    ("address", "size"), [(0, 0), (0, 100), (1, 4096), (-4096, 4096), (0, -4096), ((1 << 52) - 4096, 8192)]
)
def test_ranges_that_cannot_be(address: int, size: int) -> None:
    with pytest.raises(ConfigError):
        allocate(address, size, PLAIN)


def test_an_unknown_kind_of_huge_pages() -> None:
    with pytest.raises(ConfigError, match="none, transparent, 2M, 1G"):
        MemoryBacking(hugepages="4K")


def _pool(kilobytes: int) -> Path:
    return Path(f"/sys/kernel/mm/hugepages/hugepages-{kilobytes}kB")


def test_huge_pages_that_are_not_reserved_say_how_to_reserve_them() -> None:
    if not _pool(2048).exists():
        pytest.skip("this kernel has no 2 MiB pages")
    free = int((_pool(2048) / "free_hugepages").read_text())
    with pytest.raises(CapabilityMissing, match=r"echo \d+ > /proc/sys/vm/nr_hugepages"):
        allocate(0, (free + 64) * 2 * MIB, MemoryBacking("2M"))


def test_a_gigabyte_page_that_is_not_there() -> None:
    with pytest.raises(CapabilityMissing, match="hugepages"):
        allocate(0, 1 << 40, MemoryBacking("1G"))


@pytest.mark.parametrize(("kind", "size"), [("2M", 3 * MIB), ("1G", 512 * MIB)])
def test_sizes_that_are_not_whole_huge_pages(kind: str, size: int) -> None:
    with pytest.raises(ConfigError, match="whole"):
        allocate(0, size, MemoryBacking(kind))


@pytest.fixture
def reserved() -> object:
    """Four 2 MiB pages reserved for the length of a test, where that is allowed."""
    knob = _pool(2048) / "nr_hugepages"
    try:
        before = knob.read_text()
        knob.write_text(str(int(before) + 4))
    except OSError as error:
        pytest.skip(f"huge pages cannot be reserved here: {error.strerror}")
    if int((_pool(2048) / "free_hugepages").read_text()) < 4:
        knob.write_text(before)
        pytest.skip("this host has no four free 2 MiB pages")
    yield
    knob.write_text(before)


def test_reserved_huge_pages_back_the_guest(reserved: object) -> None:
    region = allocate(0x20_0000, 4 * MIB, MemoryBacking("2M"))
    region.buffer[0] = 1
    assert os.fstat(region.fd).st_blksize == 2 * MIB
    assert region.host_address % (2 * MIB) == 0
    region.discard()
    assert region.buffer[0] == 0
    region.close()


@pytest.mark.parametrize(
    ("shmem", "anonymous", "expected"),
    [
        ("always within_size [advise] never deny force", "always [madvise] never", "file"),
        ("always within_size advise [never] deny force", "[always] madvise never", "anonymous"),
        ("always within_size advise [never] deny force", "always madvise [never]", ""),
    ],
)
def test_what_transparent_huge_pages_can_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shmem: str, anonymous: str, expected: str
) -> None:
    (tmp_path / "shmem_enabled").write_text(shmem + "\n")
    (tmp_path / "enabled").write_text(anonymous + "\n")
    monkeypatch.setattr(backing, "_THP", str(tmp_path))
    assert backing.transparent_kind() == expected
    if not expected:
        with pytest.raises(CapabilityMissing, match="echo madvise"):
            allocate(0, 4 * MIB, MemoryBacking("transparent"))
        return
    region = allocate(0, 4 * MIB, MemoryBacking("transparent"))
    assert (region.fd >= 0) == (expected == "file")
    region.buffer[MIB] = 9
    region.discard()
    assert region.buffer[MIB] == 0
    region.close()


def test_a_host_that_gives_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lib:
        def pyhv_memory_file(self, name: bytes, size: int, shift: int) -> int:
            return -errno.EMFILE

    monkeypatch.setattr(backing, "_host", lambda: (None, Lib()))
    with pytest.raises(Exception, match="open files"):
        allocate(0, 4096, PLAIN)


def test_a_host_that_maps_nothing_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> object:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(backing, "map_file", refuse)
    with pytest.raises(Exception, match="allocate memory"):
        allocate(0, 4096, PLAIN)
    assert len(os.listdir("/proc/self/fd")) == before


def test_importing_memory_needs_no_native_part() -> None:
    code = "import sys, pyhv.memory; sys.exit('pyhv.memory._host' in sys.modules or '_cffi_backend' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
