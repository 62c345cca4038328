"""fw_cfg by ports and by DMA."""

import struct

import pytest
from chipset_fakes import Spaces, guest_memory
from hypothesis import given, settings
from hypothesis import strategies as st

from pyhv.chipset import fw_cfg as f
from pyhv.chipset.fw_cfg import FwCfg
from pyhv.errors import ConfigError

ROM = 0x20000
REQUEST = 0x8000


class Board(Spaces):
    def __init__(self, **options) -> None:
        self.memory = guest_memory(rom_at=ROM)
        self.device = FwCfg(memory=self.memory, cpus=3, **options)
        super().__init__(self.device)

    def read_item(self, key: int, length: int) -> bytes:
        self.out(0x510, key, 2)
        return bytes(self.inp(0x511) for _ in range(length))

    def directory(self) -> dict[str, tuple[int, int]]:
        (count,) = struct.unpack(">I", self.read_item(f.FILE_DIR, 4))
        files = {}
        for _ in range(count):
            entry = bytes(self.inp(0x511) for _ in range(64))
            size, key, _, name = struct.unpack(">IHH56s", entry)
            files[name.rstrip(b"\0").decode()] = (key, size)
        return files

    def dma(self, control: int, length: int = 0, target: int = 0, *, request: int = REQUEST) -> int:
        """Run a request as a guest does; gives the control field afterwards."""
        self.memory.write(request, struct.pack(">IIQ", control, length, target))
        self.out(0x514, int.from_bytes((request >> 32).to_bytes(4, "big"), "little"), 4)
        self.out(0x518, int.from_bytes((request & 0xFFFF_FFFF).to_bytes(4, "big"), "little"), 4)
        return int.from_bytes(self.memory.read(request, 4), "big")


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.mark.parametrize(
    ("key", "content"),
    [
        (f.SIGNATURE, b"QEMU"),
        (f.ID, b"\3\0\0\0"),
        (f.UUID, bytes(range(16))),
        (f.RAM_SIZE, (0x10000).to_bytes(8, "little")),
        (f.NB_CPUS, b"\3\0"),
        (f.MAX_CPUS, b"\x08\0"),
        (f.NOGRAPHIC, b"\1\0"),
    ],
)
def test_numeric_items(key, content):
    board = Board(max_cpus=8, uuid=bytes(range(16)))
    assert board.read_item(key, len(content) + 3) == content + bytes(3)


def test_unknown_keys_and_no_selection_read_zero(board):
    assert board.inp(0x511) == 0
    assert board.read_item(0x3FFF, 4) == bytes(4)
    assert board.read_item(0xBFFF, 4) == bytes(4)


def test_selecting_again_starts_over_and_bit_14_is_not_part_of_the_key(board):
    assert board.read_item(f.SIGNATURE, 2) == b"QE"
    assert board.read_item(f.SIGNATURE | 0x4000, 4) == b"QEMU"


def test_byte_writes_do_not_select(board):
    board.read_item(f.SIGNATURE, 1)
    board.out(0x510, f.ID)
    board.out(0x511, 9)
    assert board.inp(0x511) == ord("E")


def test_files_and_their_directory(board):
    board.device.add_file("opt/zeta", b"12345")
    board.device.add_file("etc/alpha", b"x" * 300)
    board.device.add_file("opt/zeta", b"123456")
    files = board.directory()
    assert list(files) == ["etc/alpha", "opt/zeta"]
    assert files["opt/zeta"] == (0x20, 6)
    assert files["etc/alpha"] == (0x21, 300)
    assert board.read_item(0x20, 6) == b"123456"


def test_e820(board):
    board.device.add_e820([(0, 0x9FC00, 1), (0xFFFC_0000, 0x40000, 2)])
    key, size = board.directory()["etc/e820"]
    assert struct.unpack("<QQIQQI", board.read_item(key, size)) == (0, 0x9FC00, 1, 0xFFFC_0000, 0x40000, 2)


def test_kernel_initrd_and_command_line(board):
    board.device.add_kernel(b"KERNEL", address=0x10_0000, entry=0x10_0040)
    board.device.add_initrd(b"INITRD!", address=0x700_0000)
    board.device.add_cmdline(b"console=ttyS0", address=0x2_0000)
    for address, size, data, content, where in (
        (f.KERNEL_ADDRESS, f.KERNEL_SIZE, f.KERNEL_DATA, b"KERNEL", 0x10_0000),
        (f.INITRD_ADDRESS, f.INITRD_SIZE, f.INITRD_DATA, b"INITRD!", 0x700_0000),
        (f.CMDLINE_ADDRESS, f.CMDLINE_SIZE, f.CMDLINE_DATA, b"console=ttyS0\0", 0x2_0000),
    ):
        assert int.from_bytes(board.read_item(address, 4), "little") == where
        assert int.from_bytes(board.read_item(size, 4), "little") == len(content)
        assert board.read_item(data, len(content)) == content
    assert int.from_bytes(board.read_item(f.KERNEL_ENTRY, 4), "little") == 0x10_0040


def test_mistakes_of_the_machine_are_refused(board):
    for name in ("", "x" * 56, "ümlaut", "a\0b"):
        with pytest.raises(ConfigError, match="fw_cfg file"):
            board.device.add_file(name, b"")
    for key in (-1, 0x4000, 0xC000, 0x10000):
        with pytest.raises(ConfigError, match="fw_cfg key"):
            board.device.add_item(key, b"")
    with pytest.raises(ConfigError, match="uuid"):
        FwCfg(memory=board.memory, cpus=1, uuid=b"short")


def test_dma_signature(board):
    assert b"".join(board.inp(port, 4).to_bytes(4, "little") for port in (0x514, 0x518)) == b"QEMU CFG"
    assert bytes(board.inp(port) for port in range(0x514, 0x51C)) == b"QEMU CFG"


def test_dma_reads_skips_and_pads(board):
    board.device.add_file("opt/data", bytes(range(100)))
    board.memory.fill(0x1000, 64, 0xEE)
    assert board.dma(0x20 << 16 | f.DMA_SELECT | f.DMA_SKIP, 90) == 0
    assert board.dma(f.DMA_READ, 4, 0x1000) == 0
    assert board.dma(f.DMA_READ, 16, 0x1004) == 0
    assert board.memory.read(0x1000, 24) == bytes(range(90, 100)) + bytes(10) + b"\xee" * 4
    assert board.dma(0, 5) == 0


def test_dma_and_port_share_the_offset(board):
    assert board.dma(f.SIGNATURE << 16 | f.DMA_SELECT | f.DMA_READ, 2, 0x1000) == 0
    assert bytes(board.inp(0x511) for _ in range(2)) == b"MU"


@pytest.mark.parametrize(
    ("length", "target"),
    [(4, 0x10000), (4, 0xFFFE), (4, ROM), (4, 2**64 - 2), (0xFFFF_FFFF, 0), (f.MAX_PADDING + 5, 0), (0x10001, 0)],
)
def test_dma_outside_memory_sets_error_and_writes_nothing(board, length, target):
    before = board.memory.read(0, REQUEST)
    assert board.dma(f.SIGNATURE << 16 | f.DMA_SELECT | f.DMA_READ, length, target) == f.DMA_ERROR
    assert board.memory.read(0, REQUEST) == before


@pytest.mark.parametrize("request_at", [0xFFF8, 0x10000, 2**63, ROM + 0x2000])
def test_a_request_outside_memory_is_harmless(board, request_at):
    board.out(0x514, int.from_bytes((request_at >> 32).to_bytes(4, "big"), "little"), 4)
    board.out(0x518, int.from_bytes((request_at & 0xFFFF_FFFF).to_bytes(4, "big"), "little"), 4)
    assert board.inp(0x514, 4) == int.from_bytes(b"QEMU", "little")


def test_the_high_half_of_the_address_is_used_once(board):
    board.out(0x514, 0xFFFF_FFFF, 4)
    board.out(0x518, 0, 4)
    assert board.dma(f.DMA_SKIP, 1) == 0
    board.memory.write(REQUEST, struct.pack(">IIQ", f.DMA_SKIP, 1, 0))
    board.out(0x518, int.from_bytes(REQUEST.to_bytes(4, "big"), "little"), 4)
    assert board.memory.read(REQUEST, 4) == bytes(4)


def test_dma_writes_only_into_items_that_allow_it(board):
    written: list[tuple[int, bytes]] = []
    board.device.add_file("etc/readonly", bytes(8))
    board.device.add_file("etc/writable", bytes(8), on_write=lambda offset, data: written.append((offset, data)))
    board.memory.write(0x1000, b"abcdefgh")
    select = f.DMA_SELECT | f.DMA_WRITE
    assert board.dma(0x20 << 16 | select, 4, 0x1000) == f.DMA_ERROR
    assert board.dma(f.SIGNATURE << 16 | select, 4, 0x1000) == f.DMA_ERROR
    assert board.dma(0x21 << 16 | select, 4, 0x1000) == 0
    assert board.dma(f.DMA_WRITE, 4, 0x1004) == 0
    assert board.dma(f.DMA_WRITE, 1, 0x1000) == f.DMA_ERROR
    assert board.dma(0x21 << 16 | select, 4, 0x10000) == f.DMA_ERROR
    assert written == [(0, b"abcd"), (4, b"efgh")]
    assert board.read_item(0x21, 8) == b"abcdefgh"


def test_reset_forgets_the_selection_and_keeps_the_items(board):
    board.device.add_file("opt/x", b"x")
    board.read_item(0x20, 1)
    board.device.reset()
    assert board.inp(0x511) == 0
    assert board.read_item(0x20, 1) == b"x"


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("dma"),
                st.integers(0, 31) | st.integers(0, 0xFFFF_FFFF) | st.just(0x20 << 16 | f.DMA_SELECT | f.DMA_WRITE),
                st.integers(0, 64) | st.integers(0, 0xFFFF_FFFF),
                st.integers(0, 0x11000) | st.integers(0, 2**64 - 1),
            ),
            st.tuples(st.just("out"), st.integers(0x50E, 0x51C), st.sampled_from((1, 2, 4)), st.integers(0, 2**32 - 1)),
            st.tuples(st.just("in"), st.integers(0x50E, 0x51C), st.sampled_from((1, 2, 4)), st.none()),
        ),
        max_size=25,
    )
)
def test_nothing_a_guest_does_raises(actions):
    board = Board()
    board.device.add_file("etc/writable", bytes(40), on_write=lambda offset, data: None)
    for kind, first, second, third in actions:
        if kind == "dma":
            assert board.dma(first, second, third) in (0, f.DMA_ERROR) or third <= REQUEST + 16
        elif kind == "out":
            board.out(first, third & ((1 << (8 * second)) - 1), second)
        else:
            assert 0 <= board.inp(first, second) < 1 << (8 * second)
        assert 0 <= board.device._offset <= len(board.device._selected)
    assert board.memory.read(ROM, 0x1000) == bytes(0x1000)
    assert len(board.device._items[0x20].data) == 40
