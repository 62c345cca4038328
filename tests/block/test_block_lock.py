"""Who may have an image at the same time."""

import fcntl
import os
import subprocess
import sys

import pytest
from qcow2_files import create

from pyhv import log
from pyhv.block import lock
from pyhv.block.open import open_image
from pyhv.errors import ConfigError

WRITER_BUSY = "disk: path: {!r} is in use by another disk or machine; to share it, all must be read-only"
READER_BUSY = "disk: path: {!r} is being written by another disk or machine"


@pytest.fixture(params=["raw", "qcow2"])
def disk(request, tmp_path):
    path = str(tmp_path / f"disk.{request.param}")
    if request.param == "raw":
        with open(path, "wb") as file:
            file.truncate(1 << 16)
    else:
        create(path, 1 << 16)
    return path, request.param


def test_readers_share(disk):
    images = [open_image(*disk, readonly=True), open_image(*disk, readonly=True), open_image(*disk, overlay=True)]
    for image in images:
        image.close()


def test_a_writer_is_alone(disk):
    image = open_image(*disk)
    for options, message in (({}, WRITER_BUSY), ({"readonly": True}, READER_BUSY), ({"overlay": True}, READER_BUSY)):
        with pytest.raises(ConfigError) as error:
            open_image(*disk, **options)
        assert str(error.value) == message.format(disk[0])
    image.close()
    open_image(*disk).close()


def test_readers_keep_writers_out(disk):
    image = open_image(*disk, readonly=True)
    with pytest.raises(ConfigError) as error:
        open_image(*disk)
    assert str(error.value) == WRITER_BUSY.format(disk[0])
    image.close()
    open_image(*disk).close()


def test_other_processes_too(disk):
    code = (
        "import sys; from pyhv.block.open import open_image; image = open_image(*sys.argv[1:]);"
        "print('open', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code, *disk], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    try:
        assert child.stdout.readline() == b"open\n"
        with pytest.raises(ConfigError, match="in use"):
            open_image(*disk)
    finally:
        child.kill()
        child.communicate()
    open_image(*disk).close()  # whoever is killed holds nothing


def test_a_link_is_the_same_image(disk, tmp_path):
    link = str(tmp_path / "link")
    os.symlink(disk[0], link)
    image = open_image(*disk)
    with pytest.raises(ConfigError, match="in use"):
        open_image(link, disk[1])
    image.close()


def test_a_file_system_without_locks_has_none(disk, monkeypatch):
    def refuse(fd, command, argument):
        raise OSError(lock.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    heard = []
    stop = log.listen(lambda name, **values: heard.append((name, values.get("path"))))
    try:
        first, second = open_image(*disk), open_image(*disk)
    finally:
        stop()
    assert heard.count(("block.unlocked", disk[0])) == 2
    first.close()
    second.close()


def test_a_failed_lock_is_a_message(disk, monkeypatch):
    def refuse(fd, command, argument):
        raise OSError(lock.errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    with pytest.raises(ConfigError, match="cannot be used: Input/output error"):
        open_image(*disk)
