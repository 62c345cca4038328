"""Console, entropy, balloon, vsock and watchdog with the drivers of Debian's kernel, over both transports."""

import contextlib
import json
import socket
import sys
import threading
from pathlib import Path

import pytest

from pyhv.linux.command import run_command
from pyhv.peripherals.balloon import Balloon
from pyhv.peripherals.console import Console
from pyhv.peripherals.entropy import Entropy
from pyhv.peripherals.vsock import Vsock
from pyhv.peripherals.watchdog import Watchdog

ROOT = Path(__file__).parents[2]
KERNEL = ROOT / "build" / "kernels" / "cloud" / "vmlinuz"
GUEST = Path(__file__).with_name("small_devices_guest.py")
MIB = 1 << 20
PATIENCE = 240.0


class Host:
    """The host's ends of the sockets, on threads that end with them."""

    def __init__(self, path):
        self.path = path
        self.over = threading.Event()
        self.answer = b""
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{path}_52")
        self.listener.listen()
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self.echo, self.call)]
        for thread in self.threads:
            thread.start()

    def echo(self):
        with contextlib.suppress(OSError):
            sock, _ = self.listener.accept()
            with sock:
                while piece := sock.recv(1 << 16):
                    sock.sendall(piece)

    def call(self):
        """Until the guest listens at its port 52."""
        while not self.over.wait(0.05) and not self.answer:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
                sock.connect(self.path)
                sock.sendall(b"CONNECT 52\nhello, guest")
                self.answer = sock.recv(100)

    def close(self):
        self.over.set()
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)


@pytest.mark.parametrize("transport", ["pci", "mmio"])
def test_linux_drives_them(transport, tmp_path, sim):
    if not KERNEL.exists():
        pytest.skip(f"{KERNEL.relative_to(ROOT)} is missing: run `make kernels`")
    path, output = str(tmp_path / "v"), tmp_path / "port"
    ours = []
    host = Host(path)
    try:
        result = run_command(
            str(KERNEL),
            [sys.executable, "-I", str(GUEST), "pyhv.test", "52"],
            transport=transport,
            devices=[
                Console(str(output), name="pyhv.test", transport=transport),
                Entropy(transport=transport),
                Balloon("128M", statistics=1000, transport=transport),
                Vsock(path, transport=transport),
                Watchdog(),
            ],
            timeout=PATIENCE,
            backend=sim,
            prepare=lambda vm: ours.extend(vm.devices[-5:]),
        )
    finally:
        host.close()
    assert result.status == 0, result
    served = json.loads(result.stdout)
    assert served.pop("rng").startswith("virtio_rng")
    assert served == {
        "hwrng": 64,
        "balloon": True,
        "echo": True,
        "served": [2, "hello, guest"],
        "nobody": "reset",
        "watchdog": "wdat_wdt",
    }
    assert host.answer.startswith(b"OK ")
    assert output.read_bytes() == b"through the port\n"
    _, entropy, balloon, _, watchdog = ours
    assert entropy.given >= 64 and balloon.released >= 128 * MIB and not watchdog.expired
    assert balloon.statistics["total"] < 400 * MIB
