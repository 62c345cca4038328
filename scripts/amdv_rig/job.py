"""What to run in the rig and on which machine: the description that initramfs and QEMU's command line come from."""

import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path

DEFAULT_CPU = "EPYC,+svm,+npt"
DEFAULT_MODULES = ("virtio_pci", "virtio_console", "virtiofs", "overlay", "kvm_amd", "tun", "vhost_net")


@dataclass(frozen=True, slots=True)
class Job:
    """One run.

    memory: MiB. timeout: seconds, the machine's boot included. hugepages: 2 MiB pages to reserve.
    module_params: {module: ["name=value", ...]} by the kernel's module names. artifacts: the host's directory that
    the command may write, seen at the same path inside. tty: a terminal for the command instead of two pipes.
    merge_stderr: standard error goes into the same pipe as standard output, so that their order is kept.
    """

    command: tuple[str, ...]
    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    smp: int = 2
    memory: int = 1024
    timeout: float = 600.0
    cpu: str = DEFAULT_CPU
    hugepages: int = 0
    modules: tuple[str, ...] = DEFAULT_MODULES
    module_params: dict[str, list[str]] = field(default_factory=dict)
    append: str = ""
    qemu_arguments: tuple[str, ...] = ()
    artifacts: Path | None = None
    stdin: bool = False
    tty: bool = False
    merge_stderr: bool = False


def job_script(job: Job) -> str:
    """The shell script that the rig's init runs inside the shared root."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(job.environment.items())]
    directory = shlex.quote(str(job.directory))
    lines.append(f"cd {directory} || exit 126")
    lines.append(f"exec {shlex.join(job.command)}")
    return "\n".join(lines) + "\n"


def settings_script(job: Job, end_marker: bytes, kernel_version: str, modules_tree: Path) -> str:
    """The variables that the rig's init reads, in shell."""
    columns, rows = shutil.get_terminal_size()
    settings = {
        "end_marker": "".join(f"\\{byte:03o}" for byte in end_marker),
        "columns": str(columns),
        "rows": str(rows),
        "artifacts": str(job.artifacts) if job.artifacts else "",
        "hugepages": str(job.hugepages),
        "stdin": "1" if job.stdin else "",
        "tty": "1" if job.tty else "",
        "merge_stderr": "1" if job.merge_stderr else "",
        "kernel_version": kernel_version,
        "modules_tree": str(modules_tree),
    }
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
