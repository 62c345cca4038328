import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.linux.cpio import CpioArchive

_FIELDS = (
    *("ino", "mode", "uid", "gid", "nlink", "mtime", "filesize"),
    *("devmajor", "devminor", "rdevmajor", "rdevminor", "namesize", "check"),
)


def parse(data: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """The entries of a newc archive, read by the format's description; the trailer included."""
    entries = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        header = {name: int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i, name in enumerate(_FIELDS)}
        name = data[at + 110 : at + 110 + header["namesize"]]
        assert name.endswith(b"\0")
        start = (at + 110 + header["namesize"] + 3) & ~3
        content = data[start : start + header["filesize"]]
        assert len(content) == header["filesize"]
        entries.append((name[:-1].decode(), header, content))
        at = (start + header["filesize"] + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not data[at:].strip(b"\0")
            return entries


def test_parents_come_before_what_they_hold() -> None:
    archive = CpioArchive()
    archive.file("lib/modules/x.ko", b"code")
    archive.file("lib/y", b"")
    names = [name for name, _, _ in parse(archive.to_bytes())]
    assert names == ["lib", "lib/modules", "lib/modules/x.ko", "lib/y", "TRAILER!!!"]


def test_kinds_and_modes() -> None:
    archive = CpioArchive()
    archive.directory("dev", 0o700)
    archive.character_device("dev/console", 5, 1)
    archive.file("init", b"#!/bin/sh\n", 0o755)
    archive.symlink("sh", "bin/busybox")
    entries = {name: (header, content) for name, header, content in parse(archive.to_bytes())}
    assert entries["dev"][0]["mode"] == stat.S_IFDIR | 0o700
    console = entries["dev/console"][0]
    assert console["mode"] == stat.S_IFCHR | 0o600
    assert (console["rdevmajor"], console["rdevminor"]) == (5, 1)
    assert entries["init"][0]["mode"] == stat.S_IFREG | 0o755
    assert entries["init"][1] == b"#!/bin/sh\n"
    assert stat.S_ISLNK(entries["sh"][0]["mode"])
    assert entries["sh"][1] == b"bin/busybox"


def test_same_contents_same_bytes() -> None:
    def build() -> bytes:
        archive = CpioArchive()
        archive.file("a/b", b"1")
        return archive.to_bytes()

    assert build() == build()
    assert len(build()) % 512 == 0


@pytest.mark.parametrize("name", ["", "/a", "a/", "a//b", ".", "a/../b", "a\0b", "TRAILER!!!"])
def test_bad_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        CpioArchive().file(name, b"")


def test_a_name_is_taken_once_and_only_directories_hold_others() -> None:
    archive = CpioArchive()
    archive.file("a", b"")
    with pytest.raises(ValueError, match="already"):
        archive.directory("a")
    with pytest.raises(ValueError, match="no directory"):
        archive.file("a/b", b"")


_NAMES = st.text(alphabet="abcXYZ019.-_ é", min_size=1, max_size=9).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(_NAMES, st.binary(max_size=70), max_size=8))
def test_what_goes_in_comes_out(files: dict[str, bytes]) -> None:
    archive = CpioArchive()
    for name, content in files.items():
        archive.file(name, content)
    assert {name: content for name, _, content in parse(archive.to_bytes())[:-1]} == files


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio(1)")
def test_cpio_itself_unpacks_it(tmp_path: Path) -> None:
    archive = CpioArchive()
    archive.file("bin/tool", b"x" * 1001, 0o755)
    archive.symlink("bin/link", "tool")
    subprocess.run(
        ["cpio", "-id", "--quiet"], input=archive.to_bytes(), cwd=tmp_path, check=True, timeout=30, capture_output=True
    )
    assert (tmp_path / "bin/link").read_bytes() == b"x" * 1001
    assert (tmp_path / "bin/tool").stat().st_mode & 0o777 == 0o755
