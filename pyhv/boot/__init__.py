"""Loaders for guest images, and what firmware would leave in memory: the state that a machine starts with.

    state = pyhv.boot.load(memory, "vmlinuz", initrd="rd.gz", cmdline="console=ttyS0", cpus=2, ram_size=64 << 20)

Only the loader that is used is imported.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import BootError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyhv.boot.acpi import Table
    from pyhv.boot.image import Source
    from pyhv.boot.state import BootState
    from pyhv.machine import Machine
    from pyhv.memory import GuestMemory

FORMATS = ("auto", "flat", "multiboot", "pvh", "bzimage", "elf")
MIN_RAM = 1 << 20
MAX_CPUS = 4096
"""What the tables could name; a machine has fewer."""
FLAT_ADDRESS = 0x7C00


def detect(kernel: Source) -> str:
    """The format of an image (path or bytes), one of FORMATS but "auto". Raises ConfigError for what is none."""
    from pyhv.boot.image import read_image
    from pyhv.boot.recognise import recognise

    return recognise(read_image(kernel))


def load(
    memory: GuestMemory,
    kernel: Source,
    *,
    cpus: int,
    ram_size: int,
    format: str = "auto",
    initrd: Source | None = None,
    cmdline: str | bytes = "",
    modules: Sequence[tuple[Source, str | bytes]] = (),
    load_address: int = FLAT_ADDRESS,
    entry: int | None = None,
    aml: bytes = b"",
    tables: tuple[Table, ...] = (),
    pci: tuple[tuple[int, int], ...] = (),
    unpack: bool = False,
    or_packed: bool = False,
    zeroed: bool = True,
    firmware: bool = False,
) -> BootState:
    """Put an image and what it expects from firmware into guest memory; gives the boot processor's first state.

    - `kernel`, `initrd`: a path, or the bytes themselves; `format` is one of FORMATS.
    - `modules`: (path or bytes, command line) for multiboot and PVH kernels, behind the initrd, which is their first.
    - `ram_size`: bytes of RAM, laid out as `pyhv.memory.ram_ranges` says; `cpus` processors are listed in the tables.
    - `load_address`, `entry`: for flat images, linear addresses; the entry is the load address unless given.
    - `aml`: more contents for \\_SB in the DSDT, from `pyhv.boot.aml`; `tables`: signature, revision, body of more tables.
    - `pci`: the PCI functions, slot * 8 + function, each with its interrupt pin (`PciBus.pins`).
    - `unpack`: unpack a bzImage's kernel on the host and enter that, instead of the image's own unpacker.
    - `or_packed`: an image that cannot be unpacked on the host unpacks itself.
    - `zeroed`: False when memory may hold something (a restart), so that an image's zeros must be written.
    - `firmware`: start the PC firmware that `pyhv.boot.rom` has installed, and offer it the image.

    Raises BootError for an image that cannot be booted, ConfigError for other mistakes; each is one line.
    """
    from pyhv.boot.image import read_image
    from pyhv.boot.request import Request, encode

    if format not in FORMATS:
        raise ConfigError(f"format: {format!r} is not one of {', '.join(FORMATS)}")
    image = read_image(kernel)
    if format == "auto":
        from pyhv.boot.recognise import recognise

        format = recognise(image)
    if not 1 <= cpus <= MAX_CPUS:
        raise ConfigError(f"cpus: {cpus} is not from 1 to {MAX_CPUS}")
    if ram_size < MIN_RAM:
        raise BootError(f"memory: {ram_size} bytes are too little to boot from; at least 1 MiB is needed")
    from pyhv.boot.pci_root import PciRoot
    from pyhv.chipset.layout import pci_memory64

    root = PciRoot(pci_memory64(max(region.end for region in memory.regions)), pci)
    if firmware:
        from pyhv.boot import rom
        from pyhv.boot.offer import Offer

        if unpack and not or_packed:
            raise ConfigError("unpack: firmware boots bzImages as they are; leave out one of the two")
        request = Request(memory, image, initrd, encode(cmdline, "cmdline"), modules, ram_size, 0, zeroed)
        offer = Offer(request, format, cpus=cpus, pci=root, aml=aml, more=tables, load_address=load_address, entry=entry)
        return rom.enter(memory, offer)
    from pyhv.boot.firmware import build

    built = build(cpus, root, aml, tables)
    built.install(memory)
    request = Request(memory, image, initrd, encode(cmdline, "cmdline"), modules, ram_size, built.rsdp, zeroed)
    if format == "multiboot":
        from pyhv.boot import multiboot

        return multiboot.load(request)
    if format == "pvh":
        from pyhv.boot import pvh

        return pvh.load(request)
    if format == "bzimage":
        from pyhv.boot import bzimage

        return bzimage.load_unpacked(request, or_packed=or_packed) if unpack else bzimage.load(request)
    if format == "elf":
        from pyhv.boot import elf_kernel

        return elf_kernel.load(request)
    from pyhv.boot import flat

    return flat.load(request, load_address, entry)


def load_machine(
    machine: Machine,
    memory: GuestMemory,
    *,
    aml: bytes = b"",
    tables: tuple[Table, ...] = (),
    pci: tuple[tuple[int, int], ...] = (),
    unpack: bool = False,
    or_packed: bool = False,
    zeroed: bool = True,
) -> BootState:
    """`load` for a machine's description; a module is "path" or "path arguments", all of which the guest is told."""
    return load(
        memory,
        machine.kernel,
        cpus=machine.cpus,
        ram_size=machine.memory,
        format=machine.format,
        initrd=machine.initrd,
        cmdline=machine.cmdline,
        modules=[(_module_path(module), module) for module in machine.modules],
        load_address=machine.load_address,
        entry=machine.entry,
        aml=aml,
        tables=tables,
        pci=pci,
        unpack=unpack,
        or_packed=or_packed,
        zeroed=zeroed,
        firmware=machine.firmware is not None,
    )


def _module_path(module: str) -> str:
    import os

    return module if os.path.exists(module) else module.split(" ", 1)[0]


__all__ = ["FORMATS", "detect", "load", "load_machine"]
