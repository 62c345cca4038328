"""A busybox userspace that uses a disk and a network card and powers off: what both sides of a comparison boot."""

import os
from pathlib import Path

from busybox_initramfs import BusyboxError, base_archive, static_busybox

from bench.measure import BUILD, ROOT, NotMeasured
from pyhv.errors import ConfigError
from pyhv.linux.initramfs import module_files
from pyhv.linux.modules import ModuleTree

KERNELS = ROOT / "build" / "kernels"
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "af_packet")
DISK_SIZE = 64 << 20
READ_MIB = 16

INIT = f"""\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
for module in $(cat /modules); do insmod /$module; done
ifconfig eth0 10.0.2.15 up
dd if=/dev/vda of=/dev/null bs=1M count={READ_MIB} 2>/dev/null && echo "disk: read"
dd if=/dev/zero of=/dev/vda bs=1M count={READ_MIB} conv=fsync 2>/dev/null && echo "disk: written"
ping -c 1 -W 20 10.0.2.2 >/dev/null && echo "net: answered"
poweroff -f
"""
EXPECTED = ("disk: read", "disk: written", "net: answered")


def kernel() -> Path:
    """Debian's cloud kernel. Raises NotMeasured."""
    path = KERNELS / "cloud" / "vmlinuz"
    if not path.exists():
        raise NotMeasured("the kernels are not there (make kernels)")
    return path


def write_initramfs() -> Path:
    """The archive, in build/bench. Raises NotMeasured."""
    kernel()
    try:
        archive = base_archive(static_busybox())
        tree = ModuleTree(KERNELS / "cloud" / "modules")
        files = module_files(tree, tree.load_order(MODULES[:3], MODULES[3:]))
    except (BusyboxError, ConfigError) as error:
        raise NotMeasured(str(error)) from None
    for path, content in files:
        archive.file(path, content)
    archive.file("modules", "\n".join(path for path, _ in files).encode())
    archive.file("init", INIT.encode(), 0o755)
    BUILD.mkdir(parents=True, exist_ok=True)
    output = BUILD / "devices.cpio"
    output.write_bytes(archive.to_bytes())
    return output


def write_disk(path: Path) -> Path:
    """An image of DISK_SIZE, the part that is read filled."""
    with path.open("wb") as file:
        file.write(os.urandom(1 << 20) * READ_MIB)
        file.truncate(DISK_SIZE)
    return path
