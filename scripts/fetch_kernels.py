#!/usr/bin/env python3
"""Fetches Debian's kernels, firmware and bare-metal programs by apt into build/kernels/, for tests to boot.

    scripts/fetch_kernels.py [--into DIR] [--refresh] [NAME ...]

Every image gets a folder with names that do not change from version to version:

    cloud/       vmlinuz, vmlinux (its ELF file), config, modules/ (a kernel's module tree with modules.dep)
    generic/     the same, of the kernel that Debian installs by default
    memtest86+/  x64.bin, ia32.bin
    ipxe/        ipxe.lkrn
    ipxe-qemu/   roms/
    seabios/     bios.bin, bios-256k.bin
    ovmf/        OVMF_CODE.fd, OVMF_VARS.fd

What is already there is not fetched again, and apt is not asked; --refresh asks and takes a newer version.
busybox-initramfs.cpio.gz, a userspace that reports and powers off, is built beside them.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from busybox_initramfs import BusyboxError, write_initramfs
from extract_vmlinux import ExtractError, extract_vmlinux

BUILD = Path(__file__).resolve().parent.parent / "build"
DEFAULT_DIRECTORY = BUILD / "kernels"
DEFAULT_NAMES = ("cloud", "generic", "memtest86+", "ipxe", "seabios")
STAMP = ".package"


class FetchError(Exception):
    """What stopped a fetch, in one line, with the way out."""


@dataclass(frozen=True, slots=True)
class Image:
    """A Debian package and the stable names that its files get; metapackages name the package they depend on."""

    package: str
    links: dict[str, str]
    kernel: bool = False


IMAGES = {
    "cloud": Image("linux-image-cloud-amd64", {}, kernel=True),
    "generic": Image("linux-image-amd64", {}, kernel=True),
    "memtest86+": Image("memtest86+", {"x64.bin": "boot/memtest86+x64.bin", "ia32.bin": "boot/memtest86+ia32.bin"}),
    "ipxe": Image("ipxe", {"ipxe.lkrn": "boot/ipxe.lkrn"}),
    "ipxe-qemu": Image("ipxe-qemu", {"roms": "usr/lib/ipxe/qemu"}),
    "seabios": Image(
        "seabios",
        {"bios.bin": "usr/share/seabios/bios.bin", "bios-256k.bin": "usr/share/seabios/bios-256k.bin"},
    ),
    "ovmf": Image(
        "ovmf",
        {"OVMF_CODE.fd": "usr/share/OVMF/OVMF_CODE.fd", "OVMF_VARS.fd": "usr/share/OVMF/OVMF_VARS.fd"},
    ),
}


def run(*command: str, cwd: Path | None = None) -> str:
    """The command's standard output; FetchError with its last line of complaint when it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=900, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is not installed: run `make deps`") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{' '.join(command)}: no end after 900 s") from None
    if done.returncode != 0:
        complaint = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise FetchError(f"{' '.join(command)}: {complaint}")
    return done.stdout


def versioned_kernel(depends: str) -> str | None:
    """The kernel package that a kernel metapackage depends on, from `apt-cache depends` output.

    >>> versioned_kernel("linux-image-amd64\\n  Depends: linux-image-6.1.0-9-amd64\\n")
    'linux-image-6.1.0-9-amd64'
    """
    for line in depends.splitlines():
        relation, _, package = line.strip().partition(": ")
        if relation == "Depends" and package.startswith("linux-image-"):
            return package
    return None


def resolve(image: Image) -> str:
    """The package to download, after refreshing apt's lists (as root) when they do not know it."""
    query = (
        ("apt-cache", "depends", "--no-recommends", image.package)
        if image.kernel
        else ("apt-cache", "show", "--no-all-versions", image.package)
    )
    for attempt in range(2):
        try:
            answer = run(*query)
        except FetchError:
            answer = ""
        package = versioned_kernel(answer) if image.kernel else (image.package if answer else None)
        if package is not None:
            return package
        if attempt == 0:
            update_lists()
    raise FetchError(f"apt knows no package {image.package}: is this Debian on x86-64, with its main archive?")


def update_lists() -> None:
    if os.geteuid() != 0:
        raise FetchError("apt's package lists are empty or old; as root, run: apt-get update")
    run("apt-get", "-q", "-o", "DPkg::Lock::Timeout=600", "update")


def download(package: str, directory: Path) -> Path:
    """The package's .deb file, downloaded into directory; old lists, whose file is gone, are refreshed once."""
    command = ["apt-get", "-q", "download", package]
    if os.geteuid() == 0:
        command[1:1] = ["-o", "APT::Sandbox::User=root"]
    try:
        run(*command, cwd=directory)
    except FetchError:
        update_lists()
        run(*command, cwd=directory)
    (deb,) = directory.glob("*.deb")
    return deb


def link(folder: Path, name: str, target: Path) -> None:
    if not target.exists():
        raise FetchError(f"the package has no {target.relative_to(folder / 'root')}")
    (folder / name).symlink_to(target.relative_to(folder))


def link_kernel(folder: Path) -> None:
    """vmlinuz, config and modules in folder, of the one kernel unpacked in folder/root; writes its modules.dep."""
    root = folder / "root"
    trees = sorted((root / "lib/modules").glob("*"))
    if len(trees) != 1:
        raise FetchError(f"expected one kernel's modules in the package, found {len(trees)}")
    version = trees[0].name
    depmod = shutil.which("depmod", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if depmod is None:
        raise FetchError("depmod (package kmod) is not installed: run `make deps`")
    run(depmod, "--basedir", str(root), version)
    link(folder, "vmlinuz", root / f"boot/vmlinuz-{version}")
    link(folder, "config", root / f"boot/config-{version}")
    link(folder, "modules", trees[0])
    write_vmlinux(folder)


def write_vmlinux(folder: Path) -> None:
    partial = folder / f".vmlinux.{os.getpid()}"
    partial.write_bytes(extract_vmlinux((folder / "vmlinuz").read_bytes()))
    partial.replace(folder / "vmlinux")


def fetch(name: str, into: Path, refresh: bool, say: Callable[[str], None]) -> None:
    """Makes into/name complete, or leaves it as it was: it is replaced in one rename."""
    image = IMAGES[name]
    folder = into / name
    stamp = folder / STAMP
    have = stamp.read_text().strip() if stamp.exists() else None
    if have is not None and not refresh:
        if image.kernel and not (folder / "vmlinux").exists():
            write_vmlinux(folder)
        say(f"{name}: {have}")
        return
    package = resolve(image)
    with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=into) as scratch:
        deb = download(package, Path(scratch))
        if have == deb.stem:
            say(f"{name}: {have} (newest)")
            return
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        run("dpkg", "-x", str(deb), str(fresh / "root"))
        if image.kernel:
            link_kernel(fresh)
        for link_name, target in image.links.items():
            link(fresh, link_name, fresh / "root" / target)
        (fresh / STAMP).write_text(f"{deb.stem}\n")
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.rename(folder)
    say(f"{name}: {deb.stem} (fetched)")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description="Fetch Debian's kernels and firmware by apt into build/kernels/.",
        epilog=f"names: {', '.join(IMAGES)}; by default {', '.join(DEFAULT_NAMES)}",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to fetch, or 'all'")
    parser.add_argument("--into", type=Path, default=DEFAULT_DIRECTORY, help="the folder (build/kernels)")
    parser.add_argument("--refresh", action="store_true", help="ask apt for newer versions of what is there")
    options = parser.parse_args(arguments)
    names = list(IMAGES) if "all" in options.names else options.names or list(DEFAULT_NAMES)
    for name in names:
        if name not in IMAGES:
            parser.error(f"unknown name '{name}' (takes {', '.join(IMAGES)} or all)")
    into: Path = options.into.resolve()
    try:
        into.mkdir(parents=True, exist_ok=True)
        for name in names:
            fetch(name, into, options.refresh, lambda line: print(line, flush=True))
        initramfs = into / "busybox-initramfs.cpio.gz"
        if options.refresh or not initramfs.exists():
            write_initramfs(initramfs)
        print(f"busybox initramfs: {initramfs.stat().st_size} bytes", flush=True)
    except (FetchError, BusyboxError, ExtractError, OSError) as error:
        print(f"fetch_kernels: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
