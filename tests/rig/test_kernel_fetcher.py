import gzip
import lzma
import struct
import subprocess
from pathlib import Path

import busybox_initramfs
import fetch_kernels
import pytest
from busybox_initramfs import BusyboxError
from extract_vmlinux import ExtractError, extract_vmlinux
from hypothesis import given
from hypothesis import strategies as st

SCRIPTS = Path(__file__).resolve().parent.parent.parent / "scripts"
ELF = b"\x7fELF" + bytes(range(256)) * 9


def bzimage(payload: bytes, version: int = 0x20F, length: int | None = None) -> bytes:
    image = bytearray(1024)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, version)
    struct.pack_into("<II", image, 0x248, 16, len(payload) if length is None else length)
    return bytes(image) + bytes(16) + payload


def test_a_gzip_kernel_comes_out() -> None:
    assert extract_vmlinux(bzimage(gzip.compress(ELF))) == ELF


def test_an_xz_kernel_comes_out_and_its_size_is_checked() -> None:
    packed = lzma.compress(ELF)
    assert extract_vmlinux(bzimage(packed + struct.pack("<I", len(ELF)))) == ELF
    with pytest.raises(ExtractError, match="instead of"):
        extract_vmlinux(bzimage(packed + struct.pack("<I", len(ELF) + 1)))


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\x7fELF" + bytes(2000),
        bzimage(gzip.compress(ELF), version=0x207),
        bzimage(b"unknown method"),
        bzimage(gzip.compress(ELF), length=0xFFFFFFFF),
        bzimage(gzip.compress(ELF)[:-20]),
        bzimage(gzip.compress(b"no ELF")),
    ],
)
def test_what_is_no_kernel_is_refused(image: bytes) -> None:
    with pytest.raises(ExtractError):
        extract_vmlinux(image)


@given(
    st.sampled_from([b"", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\x00", b"\x5d\x00\x00"]),
    st.binary(max_size=100),
    st.none() | st.integers(0, 0xFFFFFFFF),
    st.integers(0, 0xFFFF) | st.just(0x20F),
)
def test_no_image_raises_anything_else(magic: bytes, rest: bytes, length: int | None, version: int) -> None:
    with pytest.raises(ExtractError):
        extract_vmlinux(bzimage(magic + rest, version, length))


def test_the_kernel_that_a_metapackage_names() -> None:
    answer = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-9-cloud-amd64\n  Recommends: x\n"
    assert fetch_kernels.versioned_kernel(answer) == "linux-image-6.1.0-9-cloud-amd64"
    assert fetch_kernels.versioned_kernel("linux-image-amd64\n  Depends: initramfs-tools\n") is None


def test_what_is_there_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*command: str, cwd: Path | None = None) -> str:
        raise AssertionError(command)

    monkeypatch.setattr(fetch_kernels, "run", refuse)
    (tmp_path / "ipxe").mkdir()
    (tmp_path / "ipxe" / fetch_kernels.STAMP).write_text("ipxe_1.0_all\n")
    said: list[str] = []
    fetch_kernels.fetch("ipxe", tmp_path, False, said.append)
    assert said == ["ipxe: ipxe_1.0_all"]


def test_a_failed_fetch_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, cwd: Path | None = None) -> str:
        if command[0] == "apt-cache":
            return "Package: ipxe\n"
        if "download" in command:
            assert cwd is not None
            (cwd / "ipxe_2.0_all.deb").write_bytes(b"")
            return ""
        raise fetch_kernels.FetchError("dpkg: broken")

    monkeypatch.setattr(fetch_kernels, "run", run)
    (tmp_path / "ipxe").mkdir()
    (tmp_path / "ipxe" / fetch_kernels.STAMP).write_text("ipxe_1.0_all\n")
    with pytest.raises(fetch_kernels.FetchError, match="broken"):
        fetch_kernels.fetch("ipxe", tmp_path, True, lambda line: None)
    assert [path.name for path in tmp_path.iterdir()] == ["ipxe"]
    assert (tmp_path / "ipxe" / fetch_kernels.STAMP).read_text() == "ipxe_1.0_all\n"


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        fetch_kernels.main(["windows"])
    assert "unknown name 'windows'" in capsys.readouterr().err


def test_the_initramfs_is_the_same_for_the_same_busybox() -> None:
    program = b"\x7fELF busybox"
    packed = busybox_initramfs.build_initramfs(program)
    assert packed == busybox_initramfs.build_initramfs(program)
    archive = gzip.decompress(packed)
    for name in (b"init\0", b"bin/busybox\0", b"bin/sh\0", b"dev/console\0"):
        assert name in archive
    assert b"pyhv: userspace reached" in archive


def test_a_busybox_that_will_not_do(tmp_path: Path) -> None:
    program = tmp_path / "busybox"
    with pytest.raises(BusyboxError, match="make deps"):
        busybox_initramfs.static_busybox(program)
    program.write_bytes(b"#!/bin/sh\n")
    with pytest.raises(BusyboxError, match="ELF"):
        busybox_initramfs.static_busybox(program)
    program.write_bytes(b"\x7fELF..../lib64/ld-linux-x86-64.so.2\0")
    with pytest.raises(BusyboxError, match="static"):
        busybox_initramfs.static_busybox(program)


def test_deps_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([str(SCRIPTS / "deps.sh"), "--chekc"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "--chekc" in done.stderr


@pytest.mark.parametrize("group", ["build", "rig", "all"])
def test_deps_check_names_what_is_missing(group: str, tmp_path: Path) -> None:
    """With nothing installed (a dpkg-query that knows no package, no tools on PATH), every package is named."""
    for name in ("dpkg-query", "apt-get"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(SCRIPTS / "deps.sh"), "--check", group],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    missing = done.stdout.removeprefix("missing:").split()
    assert ("gcc" in missing and "python3-venv" in missing) == (group in ("build", "all"))
    assert ("qemu-system-x86" in missing and "busybox-static" in missing) == (group in ("rig", "all"))
