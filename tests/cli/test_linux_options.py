"""`pyhv run KERNEL -- COMMAND`: what is said before anything is booted."""

import os
from pathlib import Path

import pytest
from test_run import Pyhv, pyhv_run, refused

from pyhv.hv.select import Selection

__all__ = ["pyhv_run"]
RELEASE = b"6.9.9-test"


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A file that says it is a kernel, without modules."""
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    image[0x500 : 0x500 + len(RELEASE)] = RELEASE
    path = tmp_path / "vmlinuz"
    path.write_bytes(image)
    return path


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--"], "a command is missing after --"),
        (["--", ""], "command: it is empty"),
        (["--initrd", "x", "--", "true"], "--initrd: a machine that runs a command has one of its own"),
        (["--module", "x", "--", "true"], "--module: a Linux kernel takes none"),
        (["--firmware", "x", "--", "true"], "--firmware: a machine that runs a command"),
        (["--root", "/no/such", "--", "true"], "--root: '/no/such' is not a folder"),
        (["--modules", "/no/such", "--", "true"], "--modules: '/no/such' is not a folder"),
        (["--on-reset", "restart", "--", "true"], "--on-reset: a machine that runs a command"),
        (["--memory", "", "--", "true"], "--memory"),
        (["--log", "/no/such/log", "--", "true"], "--log"),
        (["--root", "/"], "--root: it is for a command"),
        (["--root-writable"], "--root-writable: it is for a command"),
        (["--modules", "/"], "--modules: it is for a command"),
        (["--transport", "mmio"], "--transport: it is for a command"),
    ],
)
def test_mistakes(pyhv_run: Pyhv, kernel: Path, words: list[str], says: str) -> None:
    at = words.index("--") if "--" in words else len(words)
    refused(pyhv_run(kernel, "--backend", "kvm", *words[:at], *words[at:]), says)


def test_what_is_no_linux_kernel(pyhv_run: Pyhv, tmp_path: Path) -> None:
    for content in (b"", b"\x7fELF" + bytes(100), b"text"):
        (tmp_path / "image").write_bytes(content)
        refused(pyhv_run(tmp_path / "image", "--backend", "kvm", "--", "true"), "image")
    refused(pyhv_run(tmp_path / "nothing", "--backend", "kvm", "--", "true"), "nothing", "No such file")


def test_a_kernel_that_is_none_inside(pyhv_run: Pyhv, kernel: Path) -> None:
    """Its header is believed until it is loaded; no descriptor is left open."""
    before = len(os.listdir("/proc/self/fd"))
    refused(pyhv_run(kernel, "--backend", "kvm", "--", "true"), "bzImage")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_module_that_is_missing_is_told_before_the_boot(pyhv_run: Pyhv, kernel: Path, sim: Selection) -> None:
    tree = kernel.parent / "modules"
    tree.mkdir()
    (tree / "modules.dep").write_text("")
    (tree / "modules.builtin").write_text("kernel/virtio_pci.ko\nkernel/virtio_console.ko\n")
    ran = pyhv_run(kernel, "--backend", "sim", "--", "true")
    refused(ran, "no module 'virtiofs'", str(tree), RELEASE.decode(), "CONFIG_VIRTIO_FS")
