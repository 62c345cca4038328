"""Opening images by what they are said to be; backing files."""

import errno
import os
from tempfile import TemporaryDirectory

import pytest
from qcow2_files import Editor, create

from pyhv import log
from pyhv.block.open import MAX_CHAIN, open_image
from pyhv.block.overlay import Overlay
from pyhv.block.raw import RawImage
from pyhv.errors import ConfigError

SIZE = 1 << 18


def opened_files():
    return len(os.listdir("/proc/self/fd"))


def failure(*args, **options):
    before = opened_files()
    with pytest.raises(ConfigError) as error:
        open_image(*args, **options)
    assert opened_files() == before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_format_is_what_was_said(tmp_path):
    path = create(tmp_path / "disk", SIZE)
    image = open_image(str(path))
    assert isinstance(image, RawImage)
    assert image.read(0, 4) == b"QFI\xfb"
    image.close()
    path.write_bytes(bytes(1 << 16))
    assert failure(str(path), "qcow2") == f"disk: {str(path)!r}: not a qcow2 image"
    assert failure(str(path), "vmdk") == "disk: format: 'vmdk' is not one of raw, qcow2"


def test_an_image_without_a_sector_is_no_disk(tmp_path):
    path = tmp_path / "disk"
    path.touch()
    says = f"disk: path: {str(path)!r} is empty: a disk has at least a sector, as of truncate -s 1G FILE"
    assert failure(str(path)) == says
    assert failure(str(path), overlay=True) == says
    create(path, 0)
    assert failure(str(path), "qcow2") == says


def test_a_file_that_may_only_be_read(tmp_path):
    if os.geteuid():
        pytest.skip("needs root, to act as somebody else")
    with TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        path = os.path.join(folder, "disk")
        with open(path, "wb") as file:
            file.truncate(512)
        os.chmod(path, 0o644)
        os.seteuid(65534)
        try:
            said = failure(path)
            os.seteuid(0)
            os.chmod(path, 0o600)
            os.seteuid(65534)
            hidden = failure(path)
        finally:
            os.seteuid(0)
    assert said == hidden + "; it may be read: with readonly it is not written"
    assert hidden == f"disk: path: {path!r} cannot be opened: Permission denied"


def test_a_qcow2_name_read_as_raw_is_told_to_listeners(tmp_path):
    heard = []
    stop = log.listen(lambda name, **values: heard.append(name))
    open_image(str(create(tmp_path / "disk.qcow2", SIZE))).close()
    stop()
    assert heard == ["block.raw"]


def test_overlay_over_qcow2(tmp_path):
    path = create(tmp_path / "disk", SIZE)
    before = path.read_bytes()
    image = open_image(str(path), "qcow2", overlay=True)
    assert isinstance(image, Overlay)
    image.write(5, b"x")
    image.close()
    assert path.read_bytes() == before


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.img"
    path.write_bytes(b"base" * (SIZE // 8))
    return path


def test_backing_files_must_be_allowed(tmp_path, base):
    path = str(create(tmp_path / "top", SIZE, backing=base))
    assert failure(path, "qcow2") == (
        f"disk: {path!r}: it stands on a backing file, {str(base)!r}; allow that with backing=yes"
    )
    image = open_image(path, "qcow2", backing=True)
    assert image.read(SIZE // 2 - 4, 8) == b"base" + bytes(4)
    image.close()
    assert opened_files()


def test_a_relative_backing_file_is_beside_the_image(tmp_path, base, monkeypatch):
    (tmp_path / "sub").mkdir()
    path = create(tmp_path / "sub" / "top", SIZE, backing="../base.img")
    monkeypatch.chdir("/")
    image = open_image(str(path), "qcow2", backing=True, readonly=True)
    assert image.read(0, 4) == b"base"
    image.close()


def test_backing_files_are_locked_for_reading(tmp_path, base):
    first = open_image(str(create(tmp_path / "a", SIZE, backing=base)), "qcow2", backing=True)
    second = open_image(str(create(tmp_path / "b", SIZE, backing=base)), "qcow2", backing=True)
    assert "in use" in failure(str(base))
    first.close()
    second.close()
    open_image(str(base)).close()


@pytest.mark.parametrize(
    ("name", "said", "message"),
    [
        ("base.img", "", "its backing file has no format"),
        ("base.img", "vmdk", "its backing file is of format 'vmdk', which is not one of raw, qcow2"),
        ("base.img", "qcow2", "not a qcow2 image"),
        ("none.img", "raw", "cannot be opened: No such file or directory"),
        ("nbd:localhost:10809", "raw", "its backing file 'nbd:localhost:10809' is not a file's path"),
        ('json:{"driver":"ssh"}', "raw", "is not a file's path"),
        ("/dev/zero", "raw", "is neither a file nor a block device"),
        ("top", "qcow2", "its backing files form a loop"),
    ],
)
def test_backing_files_that_cannot_be(tmp_path, base, name, said, message):
    path = create(tmp_path / "top", SIZE, backing=name, backing_format=said)
    for options in ({"readonly": True}, {"overlay": True}):
        assert message in failure(str(path), "qcow2", backing=True, **options)


def test_a_loop_of_two(tmp_path):
    create(tmp_path / "a", SIZE, backing="b", backing_format="qcow2")
    create(tmp_path / "b", SIZE, backing="a", backing_format="qcow2")
    assert "its backing files form a loop" in failure(str(tmp_path / "a"), "qcow2", backing=True, readonly=True)
    assert "is being written" in failure(str(tmp_path / "a"), "qcow2", backing=True)


def test_a_chain(tmp_path):
    below = None
    for n in range(MAX_CHAIN + 1):
        path = create(tmp_path / f"{n}", SIZE, bits=12, backing=below, backing_format="qcow2")
        below = path.name
        editor = Editor(path)
        editor.data_cluster(n, bytes([n + 1]) * 4096)
        editor.save()
    image = open_image(str(path), "qcow2", backing=True)
    assert [image.read(n * 4096, 1)[0] for n in range(MAX_CHAIN + 1)] == [n + 1 for n in range(MAX_CHAIN + 1)]
    image.close()
    create(tmp_path / "one more", SIZE, backing=below, backing_format="qcow2")
    assert f"more than {MAX_CHAIN} backing files" in failure(str(tmp_path / "one more"), "qcow2", backing=True)


@pytest.mark.parametrize("format", ["raw", "qcow2"])
def test_images_that_are_only_read_refuse_changes(tmp_path, format):
    path = create(tmp_path / "disk", SIZE)
    image = open_image(str(path), format, readonly=True)
    for change in (
        lambda: image.write(0, bytes(512)),
        lambda: image.discard(0, 4096),
        lambda: image.write_zeroes(0, 4096, unmap=True),
    ):
        with pytest.raises(OSError, match="Read-only") as error:
            change()
        assert error.value.errno == errno.EROFS
    image.flush()
    image.close()
