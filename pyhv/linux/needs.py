"""Which kernel modules a machine's devices need."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TRANSPORTS = {"pci": "virtio_pci", "mmio": "virtio_mmio"}
KINDS = {
    "disk": ("virtio_blk",),
    "net": ("virtio_net",),
    "share": ("virtiofs",),
    "console": ("virtio_console",),
    "entropy": ("virtio_rng",),
    "balloon": ("virtio_balloon",),
    "vsock": ("vmw_vsock_virtio_transport",),
    "pmem": ("virtio_pmem", "nd_pmem"),
}
"""The drivers of each kind of peripheral (`pyhv.peripherals`), without what they depend on."""
WATCHDOGS = {"wdat": "wdat_wdt", "i6300esb": "i6300esb"}
OVERLAY = "overlay"

_CONFIG = {
    "virtio_pci": "CONFIG_VIRTIO_PCI",
    "virtio_mmio": "CONFIG_VIRTIO_MMIO",
    "virtio_blk": "CONFIG_VIRTIO_BLK",
    "virtio_net": "CONFIG_VIRTIO_NET",
    "virtiofs": "CONFIG_VIRTIO_FS",
    "virtio_console": "CONFIG_VIRTIO_CONSOLE",
    "virtio_rng": "CONFIG_HW_RANDOM_VIRTIO",
    "virtio_balloon": "CONFIG_VIRTIO_BALLOON",
    "vmw_vsock_virtio_transport": "CONFIG_VIRTIO_VSOCKETS",
    "virtio_pmem": "CONFIG_VIRTIO_PMEM",
    "nd_pmem": "CONFIG_BLK_DEV_PMEM",
    "wdat_wdt": "CONFIG_WDAT_WDT",
    "i6300esb": "CONFIG_I6300ESB_WDT",
    "overlay": "CONFIG_OVERLAY_FS",
}


def config_of(module: str) -> str:
    """The option of the kernel's configuration that makes a module, empty where it is not one of these."""
    return _CONFIG.get(module, "")


def modules_for(devices: Iterable[object]) -> list[str]:
    """The modules for a machine's devices: those of their transports first, each once.

    A device that is no peripheral has none of its own; a virtio device of a user's needs its transport.
    """
    names: dict[str, None] = {}
    drivers: dict[str, None] = {}
    for device in devices:
        transport = TRANSPORTS.get(getattr(device, "transport", ""))
        if transport is not None:
            names.setdefault(transport)
        for driver in _drivers(device):
            drivers.setdefault(driver)
    return [*names, *drivers]


def _drivers(device: object) -> Iterable[str]:
    kind = getattr(device, "kind", "")
    if kind == "watchdog":
        return (WATCHDOGS.get(getattr(device, "model", ""), "wdat_wdt"),)
    return KINDS.get(kind, ())
