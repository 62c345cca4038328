"""Runs inside the rig, once: everything that the AMD-V tier asserts on, as JSON files in the directory of argv[1].

It asserts nothing itself. A part that breaks leaves its traceback in its file, and the others go on. Parts that have their
file already are left out.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyhv
from pyhv.hv.select import select

PROJECT = Path(__file__).resolve().parents[2]
KERNELS = PROJECT / "build" / "kernels"
sys.path.insert(0, str(PROJECT / "tests" / "guests"))

from guest_table import CASES, DEVICE_CASES, GuestCase  # noqa: E402

RIG_CASES = [*CASES, *(case for case in DEVICE_CASES if case.name != "virtio-hostile")]
"""The hostile driver does a thousand things, each with a dozen exits, which cost a third of a millisecond here."""

LINUX_TIMEOUT = 120.0
CONFORMANCE_TIMEOUT = 400.0
DISK_SIZE = 1 << 20


def image_of(name: str) -> Path:
    return PROJECT / "guests" / "build" / (f"{name}.bin" if name == "hello16" else f"{name}.elf")


def host() -> dict[str, object]:
    """What the rig's machine is."""
    modules = [line.split()[0] for line in Path("/proc/modules").read_text().splitlines()]
    parameters = Path("/sys/module/kvm_amd/parameters")
    return {
        "modules": modules,
        "kvm_amd": {p.name: p.read_text().strip() for p in parameters.iterdir()},
        "flags": next(x for x in Path("/proc/cpuinfo").read_text().splitlines() if x.startswith("flags")).split(),
        "kernel": os.uname().release,
    }


def finish(vm: pyhv.Vm, timeout: float) -> pyhv.Result:
    try:
        return vm.wait(timeout)
    except pyhv.VmTimeout:
        vm.end(pyhv.Outcome.TIMEOUT, f"no end within {timeout:g} s")
        return vm.wait()


def guest(case: GuestCase) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as scratch:
        machine = pyhv.Machine(
            image_of(case.name),
            cpus=case.cpus,
            memory="64M",
            cmdline=case.cmdline,
            devices=case.devices(Path(scratch)),
        )
        with machine.start(backend=select("auto", ["kvm", "amd-v"])) as vm:
            if case.typed:
                vm.console.expect(case.ready, timeout=60)
                vm.console.send(case.typed)
            result = finish(vm, case.timeout or case.patience).to_dict()
        if result["ok"]:
            case.verify(Path(scratch))
        return result


def linux(kernel: str, cpus: int, *, cmdline: str, memory: str = "256M", **fields: Any) -> dict[str, object]:
    machine = pyhv.Machine(
        KERNELS / "cloud" / kernel,
        initrd=KERNELS / "busybox-initramfs.cpio.gz",
        cmdline=f"console=ttyS0 panic=-1 {cmdline}".strip(),
        cpus=cpus,
        memory=memory,
        **fields,
    )
    with machine.start(backend="kvm") as vm:
        result = finish(vm, LINUX_TIMEOUT)
        return result.to_dict() | {"kvm": vm.handle.statistics(), "format": vm.boot.format}


def pages(hugepages: str) -> dict[str, object]:
    """A guest that touches memory far apart, and how the nested tables mapped it."""
    machine = pyhv.Machine(image_of("dirty"), memory="64M", hugepages=hugepages)
    with machine.start(backend="kvm") as vm:
        result = finish(vm, 60)
        return result.to_dict() | {"kvm": vm.handle.statistics()}


def command(*words: str, timeout: float = 120) -> dict[str, object]:
    done = subprocess.run(
        [PROJECT / ".venv/bin/pyhv", *words], capture_output=True, text=True, timeout=timeout, check=False
    )
    return {"status": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def with_devices() -> dict[str, object]:
    """A command inside Debian's kernel: its root over virtio-fs, a disk, a folder, and a server of this host's."""
    with tempfile.TemporaryDirectory() as scratch, socket.create_server(("127.0.0.1", 0)) as server:
        disk = Path(scratch) / "disk.img"
        disk.write_bytes(bytes(range(256)) * (DISK_SIZE // 256))
        folder = Path(scratch) / "folder"
        folder.mkdir()
        threading.Thread(target=_greet, args=(server,), daemon=True).start()
        script = f"""
            uname -r
            md5sum < /dev/vda
            echo changed | dd of=/dev/vda conv=notrunc,fsync 2>/dev/null
            exec 3<>/dev/tcp/10.0.2.2/{server.getsockname()[1]} && cat <&3
            mkdir /tmp/share && mount -t virtiofs share /tmp/share && echo shared > /tmp/share/file
            echo apart >&2
            exit 9
        """
        ran = command(
            *("run", str(KERNELS / "cloud" / "vmlinuz"), "--require", "amd-v", "--timeout", "200"),
            *("--disk", str(disk), "--net", "user", "--share", f"{folder},writable", "--", "bash", "-c", script),
            timeout=240,
        )
        shared = folder / "file"
        return ran | {
            "release": Path(KERNELS / "cloud" / "modules").resolve().name,
            "read": hashlib.md5(bytes(range(256)) * (DISK_SIZE // 256)).hexdigest(),
            "disk": disk.read_bytes()[:8].decode(errors="replace"),
            "shared": shared.read_text() if shared.exists() else None,
        }


def _greet(server: socket.socket) -> None:
    client, _ = server.accept()
    with client:
        client.sendall(b"greetings from the host\n")


def conformance(artifacts: Path) -> dict[str, object]:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "tests/conformance", "-p", "no:cacheprovider", "--tb=short"),
            f"--junitxml={artifacts / 'conformance.xml'}",
        ],
        cwd=PROJECT,
        env=os.environ | {"PYHV_TEST_BACKENDS": "kvm"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=CONFORMANCE_TIMEOUT,
        check=False,
    )
    return {"status": done.returncode, "stdout": done.stdout}


def parts(artifacts: Path) -> dict[str, Callable[[], dict[str, object]]]:
    """Every part by its file's name, the quick ones first."""
    found: dict[str, Callable[[], dict[str, object]]] = {"host": host}
    for case in RIG_CASES:
        found[f"guest-{case}"] = lambda case=case: guest(case)
    found |= {
        "pages-4k": lambda: pages("none"),
        "pages-2m": lambda: pages("2M"),
        "doctor": lambda: command("doctor", "--json"),
        "command": lambda: command("run", str(image_of("hello")), "--require", "amd-v", "--json"),
        "linux-1": lambda: linux("vmlinuz", 1, cmdline="quiet"),
        "linux-2": lambda: linux("vmlinuz", 2, cmdline="quiet"),
        "linux-pvh": lambda: linux("vmlinux", 1, cmdline="quiet"),
        "linux-hugepages": lambda: linux("vmlinuz", 1, hugepages="2M", cmdline="quiet", memory="128M"),
        "linux-irqchip": lambda: linux("vmlinuz", 2, irqchip="kernel", cmdline="quiet"),
        "linux-devices": with_devices,
        "conformance": lambda: conformance(artifacts),
    }
    return found


def main() -> int:
    artifacts = Path(sys.argv[1])
    wanted = sys.argv[2:]
    (artifacts / "started").touch()
    for name, part in parts(artifacts).items():
        if (wanted and name not in wanted) or (artifacts / f"{name}.json").exists():
            continue
        began = time.monotonic()
        try:
            result = part()
        except BaseException:
            result = {"traceback": traceback.format_exc()}
        result["seconds"] = round(time.monotonic() - began, 3)
        partial = artifacts / f".{name}"
        partial.write_text(json.dumps(result))
        partial.rename(artifacts / f"{name}.json")
        print(f"{name}: {result['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
