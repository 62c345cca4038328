"""Two Linux guests and the host: ping and TCP over taps on a bridge in a namespace, and by user mode."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

import pyhv
from pyhv.hv.select import Selection
from pyhv.linux import CommandResult
from pyhv.net.namespace import inside

ROOT = Path(__file__).resolve().parents[2]
HOST, FIRST, SECOND = "10.9.0.1", "10.9.0.2", "10.9.0.3"
PORT = 5000
TRY = "for i in $(seq 300); do {} && break; sleep 0.1; done"


@pytest.fixture
def kernel(sim: Selection) -> Path:
    path = ROOT / "build" / "kernels" / "cloud" / "vmlinuz"
    if not path.exists():
        pytest.skip(f"{path.relative_to(ROOT)} is missing: run `make kernels`")
    if not Path("/bin/busybox").exists():
        pytest.skip("/bin/busybox is missing: run `make deps`")
    return path


@pytest.fixture
def bridged(namespace: str) -> str:
    """A network namespace with a bridge that has an address."""
    inside(namespace, _make_bridge)
    return namespace


def _make_bridge() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as ip:
        ip.link("add", ifname="br0", kind="bridge")
        index = ip.link_lookup(ifname="br0")[0]
        ip.addr("add", index=index, address=HOST, prefixlen=24)
        ip.link("set", index=index, state="up")


def _greet(server: socket.socket) -> None:
    client, _ = server.accept()
    with client:
        client.sendall(b"greetings from the host\n")


def _ask(port: int) -> bytes:
    """What the guest says at a forwarded port, once it listens."""
    for _ in range(600):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            heard = client.makefile("rb").read()
            if heard:
                return heard
        time.sleep(0.1)
    return b""


def run(kernel: Path, net: pyhv.Net, script: str) -> CommandResult:
    return pyhv.run_command(
        kernel, ["/bin/busybox", "sh", "-c", script], devices=[net], backend="sim", timeout=150, cmdline="cryptomgr.notests"
    )


def test_two_guests_and_the_host_over_a_bridge(kernel: Path, bridged: str) -> None:
    def configured(address: str) -> str:
        return f"busybox ip addr add {address}/24 dev eth0; busybox ip link set eth0 up\n"

    first = configured(FIRST) + f"echo greetings from the first | busybox nc -l -p {PORT}"
    second = configured(SECOND) + "\n".join(
        [
            TRY.format(f"busybox ping -c 1 -W 1 {FIRST} >/dev/null"),
            f"busybox ping -c 1 -W 5 {FIRST} >/dev/null && echo the first answers",
            f"busybox ping -c 1 -W 5 {HOST} >/dev/null && echo the host answers",
            TRY.format(f"busybox nc {FIRST} {PORT} </dev/null 2>/dev/null"),
            f"busybox nc {HOST} {PORT} </dev/null",
        ]
    )
    server = inside(bridged, lambda: socket.create_server((HOST, PORT)))
    with server, ThreadPoolExecutor() as pool:
        pool.submit(_greet, server)
        results = pool.map(
            lambda script: run(kernel, pyhv.Net.tap(namespace=bridged, bridge="br0"), script), [first, second]
        )
        served, asked = results
    assert served.check().status == 0, served
    assert asked.check().stdout.decode().splitlines() == [
        "the first answers",
        "the host answers",
        "greetings from the first",
        "greetings from the host",
    ], asked


def test_user_mode(kernel: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as pool:
        pool.submit(_greet, server)
        heard = pool.submit(_ask, port)
        script = "\n".join(
            [
                "busybox ping -c 1 -W 5 10.0.2.2 >/dev/null && echo the gateway answers",
                f"busybox nc 10.0.2.2 {server.getsockname()[1]} </dev/null",
                f"echo greetings from the guest | busybox nc -l -p {PORT}",
            ]
        )
        result = run(kernel, pyhv.Net.user(forward=(f"tcp:{port}:{PORT}",)), script)
        assert result.check().stdout.decode().splitlines() == ["the gateway answers", "greetings from the host"], result
        assert heard.result() == b"greetings from the guest\n"
