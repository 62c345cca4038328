"""passt at the other end of a socket, in a network namespace of its own."""

import os
import shutil
import subprocess
import time

import pytest
from net_wire import Wire, arp_request

from pyhv.net.frames import parse_arp
from pyhv.net.stream import StreamBackend

HERE, GATEWAY = bytes((192, 0, 2, 5)), bytes((192, 0, 2, 1))
NETWORK = (
    "ip link set lo up && ip tuntap add ext0 mode tap && ip addr add 192.0.2.5/24 dev ext0 && ip link set ext0 up"
    " && ip route add default via 192.0.2.1"
)


@pytest.fixture
def path(tmp_path):
    """The socket of a passt that runs."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("namespaces need root and unshare (util-linux)")
    if shutil.which("passt") is None:
        pytest.skip("there is no passt (Debian: passt)")
    if subprocess.run(["unshare", "--net", "sh", "-c", NETWORK], capture_output=True).returncode:
        pytest.skip("a namespace with a tap cannot be made here")
    if subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode:
        pytest.skip("passt needs a user namespace of its own, which cannot be made here (a chroot, or forbidden by the host)")
    path = tmp_path / "passt.sock"
    command = f"{NETWORK} && exec passt --foreground --ipv4-only --runas 0 --socket {path}"
    with subprocess.Popen(["unshare", "--net", "sh", "-c", command], stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        ready = path.exists()
        if ready:
            yield str(path)
        process.terminate()
        assert ready, process.stderr.read()


def test_frames_reach_passt_and_come_back(path):
    wire = Wire(StreamBackend(path))
    wire.send(arp_request(HERE, GATEWAY))
    answer = wire.wait(lambda frame: frame[12:14] == b"\x08\x06" and parse_arp(frame[14:]))
    assert (answer.operation, answer.sender_ip, answer.target_ip) == (2, GATEWAY, HERE)
    wire.close()
