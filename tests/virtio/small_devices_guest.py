"""Runs in a Linux guest: tries every small device with the kernel's own driver, and prints what it found as JSON.

    small_devices_guest.py PORT_NAME VSOCK_PORT
"""

import fcntl
import json
import os
import socket
import struct
import sys
import time
from pathlib import Path

WDIOC_GETSUPPORT, WDIOC_SETTIMEOUT, WDIOC_KEEPALIVE = 0x80285700, 0xC0045706, 0x80045705
MIB = 1 << 20


def meminfo(name):
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) << 10
    raise LookupError(name)


def port(name):
    """The device file of a console port."""
    for entry in Path("/sys/class/virtio-ports").iterdir():
        try:
            if (entry / "name").read_text().strip() == name:
                return f"/dev/{entry.name}"
        except OSError:
            continue
    raise LookupError(name)


def until(condition):
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.1)
    return False


def echo(number):
    """Send to a port of the host, half-close, and give what came back."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        sock.connect((socket.VMADDR_CID_HOST, number))
        sock.sendall(bytes(range(256)) * 1000)
        sock.shutdown(socket.SHUT_WR)
        got = bytearray()
        while piece := sock.recv(1 << 16):
            got += piece
        return bytes(got) == bytes(range(256)) * 1000


def serve(number):
    """Take one connection from the host; gives what it said."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as listener:
        listener.bind((socket.VMADDR_CID_ANY, number))
        listener.listen()
        sock, (cid, _) = listener.accept()
        with sock:
            return cid, sock.recv(100).decode()


def nobody(number):
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        try:
            sock.connect((socket.VMADDR_CID_HOST, number))
        except ConnectionResetError:
            return "reset"
        return "connected"


def watchdog():
    fd = os.open("/dev/watchdog0", os.O_WRONLY)
    _, _, identity = struct.unpack("<II32s", fcntl.ioctl(fd, WDIOC_GETSUPPORT, bytes(40)))
    fcntl.ioctl(fd, WDIOC_SETTIMEOUT, struct.pack("<i", 60))
    fcntl.ioctl(fd, WDIOC_KEEPALIVE, bytes(4))
    os.write(fd, b"V")
    os.close(fd)
    return identity.rstrip(b"\0").decode()


def random_bytes(size):
    with open("/dev/hwrng", "rb", buffering=0) as file:
        return file.read(size)


def main():
    name, number = sys.argv[1], int(sys.argv[2])
    with open(port(name), "wb", buffering=0) as file:
        file.write(b"through the port\n")
    found = {
        "hwrng": len(random_bytes(64)),
        "rng": Path("/sys/class/misc/hw_random/rng_current").read_text().strip(),
        "balloon": until(lambda: meminfo("MemTotal") < 400 * MIB),
        "echo": echo(number),
        "served": serve(number),
        "nobody": nobody(number + 1),
        "watchdog": watchdog(),
    }
    print(json.dumps(found))


main()
