"""Starting QEMU and virtiofsd so that none of them outlives this program, however it ends."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from amdv_rig.errors import RigSetupError
from amdv_rig.job import Job

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

_VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
_QEMU = "qemu-system-x86_64"

# reboot=t and -no-reboot end the machine on a panic; nokaslr and tsc=reliable save boot time under emulation.
_KERNEL_PARAMETERS = "console=ttyS0 panic=-1 reboot=t nokaslr tsc=reliable mitigations=off quiet"


def spawn(command: Sequence[str], fds: Sequence[socket.socket], output: IO[bytes]) -> subprocess.Popen[bytes]:
    """A child in its own session (Ctrl-C is ours to handle), killed by the kernel should this program be killed."""

    def in_child() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=[fd.fileno() for fd in fds],
        start_new_session=True,
        preexec_fn=in_child,
    )


def reap(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, which has nothing left to save, and waits for it."""
    if process.poll() is None:
        process.kill()
    process.wait()


def find_programs() -> None:
    """RigSetupError unless everything that the rig runs is installed and this user may run it."""
    if shutil.which(_QEMU) is None:
        raise RigSetupError(f"{_QEMU} is not installed: run `make deps`")
    if not _VIRTIOFSD.exists():
        raise RigSetupError(f"{_VIRTIOFSD} (package qemu-system-common) is not installed: run `make deps`")
    if os.geteuid() != 0:
        raise RigSetupError("the rig needs root: virtiofsd shares the whole file system in a chroot")


def start_virtiofsd(source: Path, cache: str, listener: socket.socket, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Serves source to the one vhost-user client that connects to listener, then ends."""
    options = f"source={source},cache={cache},sandbox=chroot,no_posix_lock,log_level=warn"
    return spawn([str(_VIRTIOFSD), f"--fd={listener.fileno()}", "-o", options], [listener], log)


def kernel_parameters(job: Job) -> str:
    words = [_KERNEL_PARAMETERS]
    if job.hugepages:
        words.append(f"hugepagesz=2M hugepages={job.hugepages}")
    if job.append:
        words.append(job.append)
    return " ".join(words)


def qemu_command(job: Job, kernel: Path, initrd: Path, ports: dict[str, int], shares: dict[str, str]) -> list[str]:
    """QEMU's command line.

    ports: {console, status, stdout, stderr, stdin, tty: file descriptor of a connected socket}.
    shares: {virtiofs tag: path of the socket that a virtiofsd listens on}.
    """
    # TCG with several virtual CPUs on one thread is not stable, nor is one CPU on many.
    thread = "single" if job.smp == 1 else "multi"
    command = [
        *(_QEMU, "-accel", f"tcg,thread={thread}", "-smp", str(job.smp), "-cpu", job.cpu),
        *("-m", f"{job.memory}M", "-machine", "q35,memory-backend=mem"),
        *("-object", f"memory-backend-memfd,id=mem,size={job.memory}M,share=on"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-net", "none"),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", kernel_parameters(job)),
    ]
    for name, descriptor in ports.items():
        command += ["-chardev", f"socket,id={name},fd={descriptor}"]
    command += ["-serial", "chardev:console", "-device", "virtio-serial-pci,max_ports=8"]
    if "tty" in ports:
        command += ["-device", "virtconsole,nr=0,chardev=tty"]
    for number, name in enumerate(("status", "stdout", "stderr", "stdin"), start=1):
        if name in ports:
            command += ["-device", f"virtserialport,nr={number},chardev={name},name=rig.{name}"]
    for tag, path in shares.items():
        command += ["-chardev", f"socket,id=fs-{tag},path={path}"]
        command += ["-device", f"vhost-user-fs-pci,chardev=fs-{tag},tag={tag},queue-size=1024"]
    return [*command, *job.qemu_arguments]
