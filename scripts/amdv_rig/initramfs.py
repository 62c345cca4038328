"""The rig's initramfs: a part that is the same for every run, cached, and a part that describes one run.

The kernel unpacks concatenated archives one after another (Documentation/driver-api/early-userspace/
buffer-format.rst), so the second part is simply appended.
"""

import hashlib
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from busybox_initramfs import BusyboxError, base_archive, static_busybox

from amdv_rig.errors import RigSetupError
from amdv_rig.job import Job, job_script, settings_script
from pyhv.errors import CapabilityMissing, ConfigError
from pyhv.linux.cpio import CpioArchive
from pyhv.linux.modules import ModuleTree, module_name, unpacked_path

_INIT = Path(__file__).with_name("init.sh")
_HOLD_VM = Path(__file__).with_name("hold_vm.c")
_APPLETS = (
    "cat chroot cp dmesg grep hostname ifconfig insmod ln mkdir mkfifo mount poweroff printf setsid sleep stty usleep"
)
_MOUNT_POINTS = ("host", "rw", "new", "rig")


@dataclass(frozen=True, slots=True)
class RigKernel:
    """An unpacked Debian kernel, as scripts/fetch_kernels.py leaves it."""

    image: Path
    modules: Path

    @property
    def version(self) -> str:
        return self.modules.resolve().name


def find_kernel(directory: Path) -> RigKernel:
    """The kernel in build/kernels/NAME; RigSetupError when it was not fetched."""
    kernel = RigKernel(directory / "vmlinuz", directory / "modules")
    if not kernel.image.is_file() or not kernel.modules.is_dir():
        raise RigSetupError(f"no kernel '{directory.name}' in {directory.parent}: run `make kernels`")
    return kernel


def module_paths(kernel: RigKernel, job: Job) -> list[str]:
    """The modules to load, in order; RigSetupError for a parameter that none of them has."""
    try:
        tree = ModuleTree(kernel.modules, kernel.version)
        paths = tree.load_order(job.modules)
        loaded = {module_name(path): path for path in paths}
        for name, settings in job.module_params.items():
            if name not in loaded:
                raise RigSetupError(f"--module-param: module '{name}' is not loaded (add --module {name})")
            info = tree.info(loaded[name])
            for parameter in (setting.partition("=")[0] for setting in settings):
                if not info.has_parameter(parameter):
                    raise RigSetupError(f"--module-param: module '{name}' has no parameter '{parameter}'")
    except (ConfigError, CapabilityMissing) as error:
        raise RigSetupError(str(error)) from None
    return paths


def hold_vm(cache: Path) -> bytes:
    """The program that holds a VM for as long as the rig runs (hold_vm.c says why); compiled once."""
    target = cache / f"hold_vm-{hashlib.sha256(_HOLD_VM.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        partial = cache / f".{target.name}.{os.getpid()}"
        command = ["gcc", "-Os", "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie"]
        try:
            subprocess.run([*command, "-o", partial, _HOLD_VM], check=True, capture_output=True, text=True)
        except FileNotFoundError:
            raise RigSetupError("gcc is missing; `make deps` as root installs it") from None
        except subprocess.CalledProcessError as error:
            raise RigSetupError(f"cannot compile {_HOLD_VM.name}: {error.stderr.strip()}") from None
        partial.replace(target)
    return target.read_bytes()


def fixed_part(kernel: RigKernel, paths: list[str], cache: Path) -> Path:
    """The file with busybox, init and modules; built once for the same inputs."""
    try:
        busybox = static_busybox()
    except BusyboxError as error:
        raise RigSetupError(str(error)) from None
    init = _INIT.read_bytes()
    holder = hold_vm(cache)
    digest = hashlib.sha256()
    module_stamps = [f"{path} {(kernel.modules / path).stat().st_mtime_ns}" for path in paths]
    for ingredient in (busybox, init, holder, kernel.version.encode(), _APPLETS.encode(), "\n".join(module_stamps).encode()):
        digest.update(hashlib.sha256(ingredient).digest())
    target = cache / f"rig-{digest.hexdigest()[:16]}.cpio"
    if target.exists():
        return target
    archive = base_archive(busybox)
    for applet in _APPLETS.split():
        archive.symlink(f"bin/{applet}", "busybox")
    for directory in _MOUNT_POINTS:
        archive.directory(directory)
    tree = ModuleTree(kernel.modules, kernel.version)
    for path in paths:
        archive.file(f"lib/modules/{unpacked_path(path)}", tree.read(path))
    archive.file("init", init, 0o755)
    archive.file("bin/hold_vm", holder, 0o755)
    cache.mkdir(parents=True, exist_ok=True)
    partial = cache / f".{target.name}.{os.getpid()}"
    partial.write_bytes(archive.to_bytes())
    partial.replace(target)
    return target


def run_part(kernel: RigKernel, paths: list[str], job: Job, end_marker: bytes) -> bytes:
    """The archive with this run's settings, module parameters and command."""
    lines = [" ".join([unpacked_path(path), *job.module_params.get(module_name(path), [])]) for path in paths]
    archive = CpioArchive()
    archive.file("rig/settings", settings_script(job, end_marker, kernel.version, kernel.modules.resolve()).encode())
    archive.file("rig/modules", "".join(f"{line}\n" for line in lines).encode())
    archive.file("rig/job", job_script(job).encode())
    return archive.to_bytes()
