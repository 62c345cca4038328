"""What firmware is offered in fw_cfg: memory map, ACPI tables, and the kernel with the option ROM that boots it.

A bzImage is under the numeric keys that QEMU's `-kernel` uses, so that firmware that knows them needs no option ROM.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.boot import acpi, acpi_loader, linux16
from pyhv.boot.e820 import low_memory_end
from pyhv.boot.flat import BOOT_DRIVE
from pyhv.boot.modes import SCRATCH_STACK
from pyhv.boot.option_rom import RealModeEntry, Transfer, build
from pyhv.boot.setup_header import HIGH_ADDRESS
from pyhv.chipset import fw_cfg as keys
from pyhv.errors import BootError, ConfigError

if TYPE_CHECKING:
    from pyhv.boot.acpi import Table
    from pyhv.boot.pci_root import PciRoot
    from pyhv.boot.request import Request
    from pyhv.chipset.fw_cfg import FwCfg

ROM_NAME = "pyhv.bin"
REAL_MODE_LIMIT = 0xA_0000
"""What a flat image may use: conventional memory."""


class Offer:
    """Everything, checked and ready; `install` puts it into the device."""

    def __init__(
        self,
        request: Request,
        format: str,
        *,
        cpus: int,
        pci: PciRoot,
        aml: bytes = b"",
        more: tuple[Table, ...] = (),
        load_address: int,
        entry: int | None,
    ) -> None:
        self._tables = acpi_loader.files(*acpi.build_below(1 << 20, cpus, pci, aml, more))
        self._linux: linux16.Plan | None = None
        self._flat = b""
        if format == "bzimage":
            self._linux = linux16.plan(request)
            self._rom = build(_linux_transfers(self._linux), self._linux.entry)
        elif format == "flat":
            self._flat, jump = _flat(request, load_address, entry)
            self._rom = build([Transfer(keys.KERNEL_DATA, len(self._flat), load_address)], jump)
        else:
            raise ConfigError(
                f"firmware: {request.kernel.name!r} is a {format} image; firmware boots bzImage and flat images"
            )

    def install(self, fw_cfg: FwCfg) -> None:
        """Add the items."""
        for name, data in self._tables.items():
            fw_cfg.add_file(name, data)
        fw_cfg.add_file(f"genroms/{ROM_NAME}", self._rom)
        fw_cfg.add_file("bootorder", f"/rom@genroms/{ROM_NAME}\0".encode())
        fw_cfg.add_item(keys.IRQ0_OVERRIDE, (1).to_bytes(4, "little"))
        if self._linux is None:
            fw_cfg.add_kernel(self._flat)
            return
        plan = self._linux
        fw_cfg.add_setup(plan.setup, address=linux16.SETUP_ADDRESS)
        fw_cfg.add_kernel(plan.kernel, address=HIGH_ADDRESS)
        fw_cfg.add_cmdline(plan.cmdline, address=linux16.CMDLINE_ADDRESS)
        if plan.initrd is not None:
            fw_cfg.add_initrd(memoryview(plan.initrd.data), address=plan.initrd_address)


def _linux_transfers(plan: linux16.Plan) -> list[Transfer]:
    transfers = [
        Transfer(keys.SETUP_DATA, len(plan.setup), linux16.SETUP_ADDRESS),
        Transfer(keys.CMDLINE_DATA, len(plan.cmdline) + 1, linux16.CMDLINE_ADDRESS),
        Transfer(keys.KERNEL_DATA, len(plan.kernel), HIGH_ADDRESS),
    ]
    if plan.initrd is not None:
        transfers.append(Transfer(keys.INITRD_DATA, len(plan.initrd.data), plan.initrd_address))
    return transfers


def _flat(request: Request, load_address: int, entry: int | None) -> tuple[bytes, RealModeEntry]:
    """The image, and where in real mode it is entered. Raises BootError, ConfigError."""
    image = request.kernel
    request.no_modules("flat")
    if request.initrd is not None:
        raise ConfigError("initrd: flat images take none")
    data = bytes(image.data)
    end = load_address + len(data)
    start = load_address if entry is None else entry
    if not load_address <= start < end:
        raise BootError(f"{image}: entry {start:#x} is outside the image [{load_address:#x}, {end:#x})")
    limit = min(REAL_MODE_LIMIT, low_memory_end(request.ram_size))
    if load_address < 0x600 or end > limit:
        raise BootError(
            f"{image}: [{load_address:#x}, {end:#x}) is not in conventional memory [0x600, {limit:#x}), "
            "where firmware boots flat images"
        )
    base = start & ~0xFFFF
    return data, RealModeEntry(
        cs=base >> 4, ip=start & 0xFFFF, segment=0, sp=SCRATCH_STACK, edx=BOOT_DRIVE, interrupts=True
    )
