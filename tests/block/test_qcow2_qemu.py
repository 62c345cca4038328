"""qcow2 images of qemu-img, and images that qemu-img finds whole: the format's own authority."""

import random
import shutil
import subprocess

import pytest

from pyhv.block.open import open_image
from pyhv.errors import ConfigError

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not there (package qemu-utils)")

SIZE = 3 << 20
KINDS = {
    "v2": ("compat=0.10", SIZE),
    "v3": ("compat=1.1", SIZE),
    "small clusters": ("cluster_size=512", SIZE),
    "large clusters": ("cluster_size=2M", 20 << 20),
    "wide counts": ("refcount_bits=64,cluster_size=1k", SIZE),
    "narrow counts": ("refcount_bits=1,cluster_size=4k", SIZE),
    "lazy": ("lazy_refcounts=on", SIZE),
    "preallocated": ("preallocation=metadata", SIZE),
    "odd size": ("compat=1.1", SIZE + 1536),
}


def qemu_img(*words, status=0):
    done = subprocess.run(["qemu-img", *map(str, words)], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def assert_good(path, model, tmp_path):
    qemu_img("check", "-q", "-f", "qcow2", path)
    raw = tmp_path / "model"
    raw.write_bytes(model)
    qemu_img("compare", "-q", "-f", "qcow2", "-F", "raw", path, raw)


def scribble(image, model, rng, count):
    for _ in range(count):
        offset = rng.randrange(image.size) & ~(511 if rng.random() < 0.5 else 0)
        length = min(image.size - offset, rng.choice([512, 4096, rng.randrange(1, 150000)]))
        what = rng.random()
        if what < 0.6:
            model[offset : offset + length] = data = rng.randbytes(length)
            image.write(offset, data)
        elif what < 0.75:
            image.write_zeroes(offset, length, unmap=what < 0.7)
            model[offset : offset + length] = bytes(length)
        elif what < 0.9:
            image.discard(offset, length)
            model[offset : offset + length] = image.read(offset, length)
        else:
            image.flush()
    assert image.read(0, image.size) == model


@pytest.mark.parametrize("kind", KINDS)
def test_written_images_are_whole(tmp_path, kind):
    options, size = KINDS[kind]
    path, rng = tmp_path / "disk", random.Random(kind)
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, path, size)
    model = bytearray(size)
    for _ in range(2):
        image = open_image(str(path), "qcow2")
        assert image.size == size
        scribble(image, model, rng, 40)
        image.close()
        assert_good(path, model, tmp_path)


@pytest.mark.parametrize("options", ["cluster_size=4k", "cluster_size=64k,compression_type=zstd", "compat=0.10"])
def test_compressed_images(tmp_path, options):
    rng = random.Random(options)
    model = bytearray(SIZE)
    for start in range(0, SIZE, 100_000):
        model[start : start + 50_000] = rng.randbytes(500) * 100
    del model[SIZE:]
    raw, path = tmp_path / "raw", tmp_path / "disk"
    raw.write_bytes(model)
    try:
        qemu_img("convert", "-c", "-f", "raw", "-O", "qcow2", "-o", options, raw, path)
    except AssertionError as error:
        if "zstd" not in str(error):
            raise
        pytest.skip(f"this qemu-img has no zstd: {error}")
    image = open_image(str(path), "qcow2")
    assert image.read(0, SIZE) == model
    scribble(image, model, rng, 30)
    image.close()
    assert_good(path, model, tmp_path)


def test_snapshots(tmp_path):
    path, rng = tmp_path / "disk", random.Random(1)
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", path, SIZE)
    model, kept = bytearray(SIZE), {}
    for n in range(3):
        image = open_image(str(path), "qcow2")
        scribble(image, model, rng, 20)
        image.close()
        assert_good(path, model, tmp_path)
        qemu_img("snapshot", "-c", f"s{n}", path)
        kept[f"s{n}"] = bytes(model)
    qemu_img("snapshot", "-d", "s1", path)
    image = open_image(str(path), "qcow2")
    scribble(image, model, rng, 20)
    image.close()
    assert_good(path, model, tmp_path)
    for name in ("s0", "s2"):
        qemu_img("snapshot", "-a", name, path)
        assert_good(path, kept[name], tmp_path)
        image = open_image(str(path), "qcow2")
        after = bytearray(kept[name])
        scribble(image, after, rng, 10)
        image.close()
        assert_good(path, after, tmp_path)


@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_backing_files(tmp_path, compat):
    rng = random.Random(compat)
    base, middle, top = tmp_path / "base", tmp_path / "middle", tmp_path / "top"
    base.write_bytes(rng.randbytes(SIZE // 2))
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "-b", base, "-F", "raw", middle, SIZE)
    model = bytearray(base.read_bytes().ljust(SIZE, b"\0"))
    image = open_image(str(middle), "qcow2", backing=True)
    scribble(image, model, rng, 15)
    image.close()
    assert_good(middle, model, tmp_path)
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", "-b", "middle", "-F", "qcow2", top)
    image = open_image(str(top), "qcow2", backing=True)
    assert image.read(0, SIZE) == model
    below = bytes(model)
    scribble(image, model, rng, 15)
    image.close()
    assert_good(top, model, tmp_path)
    assert_good(middle, below, tmp_path)


def test_features_that_are_refused(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", tmp_path / "extended", SIZE)
    with pytest.raises(ConfigError, match="not supported: extended L2 entries"):
        open_image(str(tmp_path / "extended"), "qcow2")
    data = f"data_file={tmp_path / 'data'}"
    qemu_img("create", "-q", "-f", "qcow2", "-o", data, tmp_path / "external", SIZE)
    with pytest.raises(ConfigError, match="not supported: external data file"):
        open_image(str(tmp_path / "external"), "qcow2")


def test_bitmaps_are_given_up_by_the_first_change(tmp_path):
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    qemu_img("bitmap", "--add", path, "b0")
    assert "bitmaps" in qemu_img("info", path)
    open_image(str(path), "qcow2").close()
    assert path.read_bytes()[88:96] == (1).to_bytes(8, "big")
    image = open_image(str(path), "qcow2")
    image.write(0, b"x")
    image.close()
    assert path.read_bytes()[88:96] == bytes(8)
    assert qemu_img("check", "-f", "qcow2", path, status=3)  # its clusters are all that leaks


def test_locks_are_qemu_s(tmp_path):
    path = tmp_path / "disk"
    qemu_img("create", "-q", "-f", "qcow2", path, SIZE)
    image = open_image(str(path), "qcow2")
    assert qemu_img("info", path, status=1) == ""
    image.close()
    reader = open_image(str(path), "qcow2", readonly=True)
    assert "file format: qcow2" in qemu_img("info", path)
    qemu_img("snapshot", "-c", "s", path, status=1)
    reader.close()
    qemu_img("snapshot", "-c", "s", path)
