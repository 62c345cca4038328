"""Rows about Linux with devices, beside QEMU's own: a command inside it, and a boot on kvm_amd in the rig."""

import json
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pyhv
from bench.linux_initramfs import kernel, write_initramfs
from bench.measure import PYHV, PYTHON, ROOT, NotMeasured, Row, interleaved, wall
from pyhv.linux import Command
from pyhv.linux.command import ROOT_TAG
from pyhv.linux.job import CONTROL, ERRORS, OUTPUT

VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
RIG_SECONDS = 900


def in_rig(rounds: int) -> Iterator[Row]:
    """A boot with disk and network, whole processes."""
    name = "Linux with disk and network on kvm_amd (rig) / QEMU"
    try:
        write_initramfs()
        times = _rig(rounds)
    except NotMeasured as error:
        yield Row(name, "", "", None, at_most=1.5, note=str(error))
        return
    ours, theirs = times["pyhv"], times["qemu"]
    yield Row(name, f"{ours:.2f} s", f"{theirs:.2f} s", ours / theirs, at_most=1.5)


def _rig(rounds: int) -> dict[str, float]:
    if shutil.which("qemu-system-x86_64") is None:
        raise NotMeasured("there is no qemu-system-x86_64 (make deps)")
    command = [
        *(PYTHON, ROOT / "scripts" / "rig.py", "--memory", "1536M", "--timeout", str(RIG_SECONDS)),
        *("--", PYTHON, ROOT / "scripts" / "bench" / "devices_in_rig.py", str(rounds)),
    ]
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    report = json.loads(found[-1]) if found else {"error": f"status {done.returncode}: {done.stderr[-300:]}"}
    if "error" in report:
        raise NotMeasured(f"the rig: {report['error']}")
    return dict(report)


def commands(rounds: int) -> Iterator[Row]:
    """`pyhv run vmlinuz -- true` on the simulator, and the same kernel, initramfs and root in QEMU TCG with virtiofsd."""
    name = "pyhv run vmlinuz -- true, sim / QEMU TCG with virtiofsd"
    try:
        image = kernel()
        if shutil.which("qemu-system-x86_64") is None or not VIRTIOFSD.exists():
            raise NotMeasured("there is no qemu-system-x86_64 with virtiofsd (make deps)")
        ours, theirs = interleaved(
            [partial(wall, [PYHV, "run", image, "--backend", "sim", "--", "true"]), partial(_qemu_command, image)], rounds
        )
    except (NotMeasured, pyhv.PyhvError) as error:
        yield Row(name, "", "", None, at_most=4, note=str(error))
        return
    yield Row(name, f"{ours:.2f} s", f"{theirs:.2f} s", ours / theirs, at_most=4)


def _qemu_command(image: Path) -> float:
    """Seconds of QEMU and virtiofsd for what pyhv gives the guest to do. Raises NotMeasured when it was not done."""
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        command = stack.enter_context(Command(image, ["true"]))
        files, control, initrd = (Path(scratch) / name for name in ("fs.sock", "control", "initrd"))
        initrd.write_bytes(Path(str(command.machine.initrd)).read_bytes())
        memory = command.machine.memory >> 20
        qemu = [
            *("qemu-system-x86_64", "-M", "q35,memory-backend=mem", "-accel", "tcg", "-cpu", "max", "-m", f"{memory}"),
            *("-object", f"memory-backend-memfd,id=mem,size={memory}M,share=on", "-nodefaults", "-display", "none"),
            *("-no-reboot", "-serial", "stdio", "-kernel", image, "-initrd", initrd, "-append", command.machine.cmdline),
            *("-chardev", f"socket,id=fs,path={files}", "-device", f"vhost-user-fs-pci,chardev=fs,tag={ROOT_TAG}"),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=control,path={control}"),
            *("-device", f"virtserialport,chardev=control,name={CONTROL}"),
        ]
        for port in (OUTPUT, ERRORS):
            qemu += ["-chardev", f"null,id={port}", "-device", f"virtserialport,chardev={port},name={port}"]
        heard = bytearray()
        listener = stack.enter_context(_listening(control))
        threading.Thread(target=_answer, args=(listener, heard), daemon=True).start()
        began = time.perf_counter()
        with subprocess.Popen(
            [VIRTIOFSD, f"--socket-path={files}", "-o", "source=/", "-o", "sandbox=chroot", "-o", "no_posix_lock"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                while not files.exists() and server.poll() is None:
                    time.sleep(0.005)
                wall(qemu)
            finally:
                server.terminate()
        took = time.perf_counter() - began
        if b"exit 0 " not in heard:
            raise NotMeasured(f"the guest in QEMU did not report that it ran the command, but {bytes(heard)!r}")
        return took


def _listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _answer(listener: socket.socket, heard: bytearray) -> None:
    """What pyhv says to the guest's init: that its report has arrived."""
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(4096):
            heard += data
            if b"exit " in heard and heard.endswith(b"\n"):
                connection.sendall(b"done\n")
