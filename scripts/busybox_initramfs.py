#!/usr/bin/env python3
"""Builds the smallest userspace that proves a Linux kernel came up: busybox, which reports and powers off.

    scripts/busybox_initramfs.py [OUTPUT]

Its /init prints "pyhv: userspace reached", the kernel, the CPUs and the memory it sees, then runs the shell command
in `pyhv.run=` of the kernel's command line, if there is one (spaces written as commas), and powers off.
"""

import gzip
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pyhv.linux.cpio import CpioArchive

BUSYBOX = Path("/bin/busybox")
DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "build/kernels/busybox-initramfs.cpio.gz"

INIT = """\
#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
echo "pyhv: userspace reached"
uname -a
echo "pyhv: cpus $(grep -c '^processor' /proc/cpuinfo)"
grep MemTotal /proc/meminfo
for word in $(cat /proc/cmdline); do
    case $word in
        pyhv.run=*)
            sh -c "$(echo "${word#pyhv.run=}" | tr , ' ')"
            echo "pyhv: run status $?"
            ;;
    esac
done
poweroff -f
"""


class BusyboxError(Exception):
    """No usable busybox on this system."""


def static_busybox(path: Path = BUSYBOX) -> bytes:
    """The static busybox program; BusyboxError when it is missing or needs shared libraries."""
    try:
        program = path.read_bytes()
    except OSError:
        raise BusyboxError(f"no {path} (package busybox-static): run `make deps`") from None
    if not program.startswith(b"\x7fELF"):
        raise BusyboxError(f"{path} is no ELF program")
    if b"/ld-linux" in program:
        raise BusyboxError(f"{path} is not static (package busybox-static): run `make deps`")
    return program


def base_archive(program: bytes) -> CpioArchive:
    """An archive with busybox, /bin/sh, mount points, and the /dev/console that the kernel opens for /init."""
    archive = CpioArchive()
    for directory in ("bin", "dev", "proc", "sys", "tmp"):
        archive.directory(directory)
    archive.character_device("dev/console", 5, 1)
    archive.character_device("dev/null", 1, 3, 0o666)
    archive.file("bin/busybox", program, 0o755)
    archive.symlink("bin/sh", "busybox")
    return archive


def build_initramfs(program: bytes, init: str = INIT) -> bytes:
    """The gzip-compressed archive: the same bytes for the same busybox and init."""
    archive = base_archive(program)
    archive.file("init", init.encode(), 0o755)
    return gzip.compress(archive.to_bytes(), compresslevel=6, mtime=0)


def write_initramfs(output: Path) -> None:
    """Writes the initramfs to output, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    partial.write_bytes(build_initramfs(static_busybox()))
    partial.replace(output)


def main(arguments: Sequence[str]) -> int:
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print("usage: busybox_initramfs.py [OUTPUT]", file=sys.stderr)
        return 2
    output = Path(arguments[0]) if arguments else DEFAULT_OUTPUT
    try:
        write_initramfs(output)
    except (BusyboxError, OSError) as error:
        print(f"busybox_initramfs: {error}", file=sys.stderr)
        return 1
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
