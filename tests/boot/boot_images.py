"""Images made to order, byte by byte, and a guest memory that notices a write outside it."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from pyhv.memory import MMIO_GAP_END, MMIO_GAP_START, GuestMemory, MemoryRegion

MIB = 1 << 20
MULTIBOOT_MAGIC = 0x1BADB002


def guest_memory(size: int = 16 * MIB) -> GuestMemory:
    """RAM of `size` bytes at 0."""
    memory = GuestMemory()
    memory.add(MemoryRegion(0, memoryview(bytearray(size))))
    return memory


def split_memory(high: int) -> tuple[GuestMemory, int]:
    """A machine with RAM above 4 GiB; the 3 GiB below are one sparse mapping. Gives memory and its size."""
    import mmap

    memory = GuestMemory()
    memory.add(MemoryRegion(0, memoryview(mmap.mmap(-1, MMIO_GAP_START))))
    memory.add(MemoryRegion(MMIO_GAP_END, memoryview(mmap.mmap(-1, high))))
    return memory, MMIO_GAP_START + high


@dataclass
class Load:
    """A program header; `memsz` None means as long as the data, `offset` None right behind the headers."""

    paddr: int
    data: bytes = b""
    memsz: int | None = None
    vaddr: int | None = None
    type: int = 1
    flags: int = 7
    offset: int | None = None
    filesz: int | None = None
    align: int = 4


def elf(bits: int, entry: int, loads: Sequence[Load], *, machine: int | None = None, kind: int = 2) -> bytes:
    """An executable; the contents of the segments follow the headers, each at a multiple of 16."""
    header_size, ph_size = (64, 56) if bits == 64 else (52, 32)
    position = header_size + ph_size * len(loads)
    headers, body = [], b""
    for load in loads:
        pad = -(position + len(body)) % 16
        body += bytes(pad)
        offset = position + len(body) if load.offset is None else load.offset
        body += load.data
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = len(load.data) if load.memsz is None else load.memsz
        vaddr = load.paddr if load.vaddr is None else load.vaddr
        if bits == 64:
            packed = struct.pack(
                "<IIQQQQQQ", load.type, load.flags, offset, vaddr, load.paddr, filesz, memsz, load.align
            )
        else:
            packed = struct.pack("<8I", load.type, offset, vaddr, load.paddr, filesz, memsz, load.flags, load.align)
        headers.append(packed)
    ident = b"\x7fELF" + bytes((bits // 32, 1, 1)) + bytes(9)
    number = machine if machine is not None else (62 if bits == 64 else 3)
    layout = "<16sHHIQQQIHHHHHH" if bits == 64 else "<16sHHIIIIIHHHHHH"
    header = struct.pack(
        layout, ident, kind, number, 1, entry, header_size, 0, 0, header_size, ph_size, len(loads), 0, 0, 0
    )
    return header + b"".join(headers) + body


def multiboot_header(flags: int = 3, *addresses: int) -> bytes:
    """The header, with address fields where they are given."""
    checksum = -(MULTIBOOT_MAGIC + flags) & 0xFFFF_FFFF
    return struct.pack(f"<{3 + len(addresses)}I", MULTIBOOT_MAGIC, flags, checksum, *addresses)


def multiboot_elf(body: bytes = b"\xf4" * 64, *, flags: int = 3, bits: int = 32, address: int = MIB) -> bytes:
    """An ELF file whose only segment begins with a multiboot header; the entry is right behind that."""
    data = multiboot_header(flags) + body
    return elf(bits, address + 12, [Load(address, data, memsz=len(data) + 4096)])


def xen_note(entry: int, size: int = 4, name: bytes = b"Xen\0", kind: int = 18) -> bytes:
    """An ELF note as Linux carries it for PVH."""
    return (
        struct.pack("<III", len(name), size, kind)
        + name
        + entry.to_bytes(size, "little").ljust(-(-size // 4) * 4, b"\0")
    )


def pvh_elf(bits: int = 64, address: int = MIB, body: bytes = b"\xf4" * 64, *, note: bytes | None = None) -> bytes:
    """An ELF file with a PVH note; the physical entry is `address` + 16."""
    note = xen_note(address + 16) if note is None else note
    return elf(bits, address + 32, [Load(address, body, memsz=8192), Load(0, note, type=4, memsz=len(note))])


@dataclass
class BzImage:
    """The fields of a setup header; the kernel is `size` bytes that begin with its 32-bit entry."""

    version: int = 0x20F
    setup_sects: int = 2
    size: int = 0x3000
    syssize: int | None = None
    loadflags: int = 1
    code32_start: int = 0x100000
    initrd_max: int = 0x7FFFFFFF
    alignment: int = 0x200000
    relocatable: int = 1
    xloadflags: int = 3
    cmdline_size: int = 2047
    payload: bytes = b""
    payload_offset: int = 0x400
    pref_address: int = MIB
    init_size: int = 0x8000
    boot_flag: int = 0xAA55
    magic: bytes = b"HdrS"

    def build(self) -> bytes:
        kernel = bytearray(b"\x90" * self.size)
        kernel[self.payload_offset : self.payload_offset + len(self.payload)] = self.payload
        sectors = self.setup_sects or 4
        setup = bytearray((sectors + 1) * 512)

        def put(layout: str, offset: int, value: int) -> None:
            struct.pack_into(layout, setup, offset, value)

        put("<B", 0x1F1, self.setup_sects)
        put("<I", 0x1F4, -(-len(kernel) // 16) if self.syssize is None else self.syssize)
        put("<H", 0x1FE, self.boot_flag)
        put("<H", 0x200, 0x66EB)
        setup[0x202:0x206] = self.magic
        put("<H", 0x206, self.version)
        put("<B", 0x211, self.loadflags)
        put("<I", 0x214, self.code32_start)
        put("<I", 0x22C, self.initrd_max)
        put("<I", 0x230, self.alignment)
        put("<B", 0x234, self.relocatable)
        put("<H", 0x236, self.xloadflags)
        put("<I", 0x238, self.cmdline_size)
        put("<I", 0x248, self.payload_offset)
        put("<I", 0x24C, len(self.payload))
        put("<Q", 0x258, self.pref_address)
        put("<I", 0x260, self.init_size)
        return bytes(setup) + bytes(kernel)
