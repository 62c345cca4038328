"""Module trees: what is found where, in which order it is loaded, and what is said where it is not there."""

import gzip
import lzma
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_module import made_module

from pyhv.errors import ConfigError
from pyhv.linux.modinfo import ModInfo, ModInfoError
from pyhv.linux.modules import MissingModule, ModuleTree, module_name, parse_dependencies, unpacked_path
from pyhv.linux.needs import config_of, modules_for
from pyhv.linux.release import kernel_release
from pyhv.linux.trees import find_tree

RELEASE = "6.9.9-test"
DEP = """\
kernel/lib/ring.ko:
kernel/drivers/bus.ko: kernel/lib/ring.ko
kernel/fs/share-fs.ko.xz: kernel/drivers/bus.ko kernel/lib/ring.ko
kernel/crypto/sum_generic.ko:
kernel/other.ko:
"""


def make_tree(path: Path, dep: str | None = DEP, builtin: str | None = "kernel/fs/old-fs.ko\n", **texts: str) -> ModuleTree:
    path.mkdir(parents=True, exist_ok=True)
    for name, text in {"dep": dep, "builtin": builtin, **texts}.items():
        if text is not None:
            (path / f"modules.{name}").write_text(text)
    return ModuleTree(path, RELEASE)


def put(tree: ModuleTree | Path, name: str, *entries: str) -> None:
    path = (tree if isinstance(tree, Path) else Path(tree.path)) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = made_module(*entries)
    packers = {".xz": lzma.compress, ".gz": gzip.compress}
    path.write_bytes(packers.get(path.suffix, bytes)(content))


def test_names_as_the_kernel_has_them() -> None:
    assert module_name("kernel/arch/x86/kvm/kvm-amd.ko") == "kvm_amd"
    assert module_name("a/b.ko.xz") == "b"
    assert module_name("vfio-pci") == "vfio_pci"
    assert unpacked_path("a.ko/b.ko.zst") == "a.ko/b.ko"


def test_dependencies_come_first_and_once(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    order = ["kernel/lib/ring.ko", "kernel/drivers/bus.ko", "kernel/fs/share-fs.ko.xz", "kernel/other.ko"]
    assert tree.load_order(["share_fs", "bus", "share-fs", "other"]) == order


def test_what_is_built_in_is_not_loaded(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    assert tree.load_order(["old_fs", "other"]) == ["kernel/other.ko"]
    assert tree.is_builtin("old-fs") and not tree.is_builtin("other")


def test_what_is_missing_is_named_with_the_tree_and_the_fix(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    with pytest.raises(MissingModule) as caught:
        tree.load_order(["virtiofs"])
    text = str(caught.value)
    assert "'virtiofs'" in text and str(tmp_path) in text and "CONFIG_VIRTIO_FS" in text and RELEASE in text
    assert "\n" not in text and "--modules" in text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text
    assert tree.load_order(["other"], optional=["virtiofs", "ring"]) == ["kernel/other.ko", "kernel/lib/ring.ko"]


def test_where_it_is_unknown_what_is_built_in_nothing_is_missing(tmp_path: Path) -> None:
    tree = make_tree(tmp_path, builtin=None)
    assert tree.load_order(["virtiofs", "other"]) == ["kernel/other.ko"]


def test_soft_dependencies_by_name_and_alias(tmp_path: Path) -> None:
    tree = make_tree(
        tmp_path,
        softdep="# comment\nsoftdep share_fs pre: crypto-sum nothing-such post: other\nsoftdep bad\n",
        alias="alias pci:v*d* bus\nalias crypto-su? sum_generic\nalias broken\n",
    )
    order = tree.load_order(["share_fs"])
    assert order.index("kernel/crypto/sum_generic.ko") < order.index("kernel/fs/share-fs.ko.xz")
    assert "kernel/other.ko" not in order


def test_without_modules_dep_the_modules_say_what_they_need(tmp_path: Path) -> None:
    put(tmp_path, "x/top.ko.gz", "depends=middle,old_fs", "softdep=pre: soft")
    put(tmp_path, "y/middle.ko.xz", "depends=bottom")
    put(tmp_path, "bottom.ko", "depends=")
    put(tmp_path, "soft.ko", "name=soft")
    tree = make_tree(tmp_path, dep=None)
    assert tree.load_order(["top"]) == ["soft.ko", "bottom.ko", "y/middle.ko.xz", "x/top.ko.gz"]
    put(tmp_path, "bad.ko", "depends=gone")
    with pytest.raises(MissingModule, match="'gone'"):
        make_tree(tmp_path, dep=None).load_order(["bad"])


def test_modules_that_need_each_other_end(tmp_path: Path) -> None:
    put(tmp_path, "a.ko", "depends=b")
    put(tmp_path, "b.ko", "depends=a")
    assert sorted(make_tree(tmp_path, dep=None).load_order(["a"])) == ["a.ko", "b.ko"]


def test_a_chain_may_be_long(tmp_path: Path) -> None:
    lines = [f"m{i}.ko:" + (f" m{i + 1}.ko" if i < 3000 else "") for i in range(3001)]
    order = make_tree(tmp_path, dep="\n".join(lines)).load_order(["m0"])
    assert order == [f"m{i}.ko" for i in reversed(range(3001))]


def test_modules_are_unpacked(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    plain = made_module("name=x")
    for suffix, pack in {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress, ".zst": zstandard.compress}.items():
        (tmp_path / f"x.ko{suffix}").write_bytes(pack(plain))
        assert make_tree(tmp_path).read(f"x.ko{suffix}") == plain
    for name, content, words in (
        ("bad.ko.xz", lzma.compress(plain)[:-9], "bad.ko.xz"),
        ("bad.ko.gz", b"plain", "not packed as its name says"),
        ("gone.ko", None, "No such file"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=words) as caught:
            make_tree(tmp_path).read(name)
        assert "\n" not in str(caught.value)


def test_modules_of_another_kernel(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    put(tree, "theirs.ko", "vermagic=5.0.0 SMP mod_unload ")
    put(tree, "symbols.ko", "vermagic=5.0.0 SMP mod_unload modversions ")
    put(tree, "ours.ko", f"vermagic={RELEASE} SMP mod_unload ")
    put(tree, "silent.ko")
    for path in ("symbols.ko", "ours.ko", "silent.ko"):
        tree.check_release(path)
    with pytest.raises(ConfigError, match=f"theirs.ko is for the kernel 5.0.0, and this one is {RELEASE}"):
        tree.check_release("theirs.ko")


def test_what_a_module_says() -> None:
    info = ModInfo(made_module("parmtype=nested:int", "parm=nest:x", "depends=a,b", "softdep=pre: c d post: e", "odd"))
    assert info.has_parameter("nested") and not info.has_parameter("nest")
    assert info.depends == ["a", "b"] and info.soft_before == ["c", "d"]
    assert info.version_magic == ""


@given(st.binary(max_size=300))
def test_what_is_no_module_is_said(tail: bytes) -> None:
    for data in (tail, b"\x7fELF\x02\x01" + tail, made_module("a=b")[: len(tail)]):
        with pytest.raises(ModInfoError):
            ModInfo(data)


@given(st.integers(min_value=40, max_value=299), st.integers(min_value=0, max_value=255))
def test_a_damaged_module_is_read_or_refused(position: int, byte: int) -> None:
    data = bytearray(made_module("name=x", "depends=y"))
    data[position % len(data)] = byte
    try:
        ModInfo(bytes(data))
    except ModInfoError as error:
        assert str(error)


@given(st.text(max_size=200))
def test_any_text_is_a_table(text: str) -> None:
    for path, needed in parse_dependencies(text):
        assert path == path.strip() and isinstance(needed, list)


# Where trees are


def place(path: Path) -> Path:
    make_tree(path)
    return path


def test_a_tree_beside_the_image_as_packages_unpack(tmp_path: Path) -> None:
    kernel = tmp_path / "root/boot/vmlinuz"
    expected = place(tmp_path / f"root/lib/modules/{RELEASE}")
    tree, looked = find_tree(str(kernel), RELEASE)
    assert tree is not None and Path(tree.path) == expected and looked[-1] == str(expected)
    link = tmp_path / "elsewhere"
    kernel.parent.mkdir()
    kernel.touch()
    link.symlink_to(kernel)
    assert find_tree(str(link), RELEASE)[0] is not None


@pytest.mark.parametrize("where", ["modules", f"lib/modules/{RELEASE}"])
def test_a_tree_in_the_images_folder(tmp_path: Path, where: str) -> None:
    expected = place(tmp_path / where)
    tree, _ = find_tree(str(tmp_path / "bzImage"), RELEASE)
    assert tree is not None and Path(tree.path) == expected


def test_the_tree_that_a_kernel_was_built_in(tmp_path: Path) -> None:
    place(tmp_path)
    (tmp_path / "modules.order").touch()
    for image in ("arch/x86/boot/bzImage", "vmlinux"):
        tree, _ = find_tree(str(tmp_path / image), RELEASE)
        assert tree is not None and Path(tree.path) == tmp_path


def test_an_image_inside_its_tree(tmp_path: Path) -> None:
    expected = place(tmp_path / RELEASE)
    tree, _ = find_tree(str(expected / "vmlinuz"), RELEASE)
    assert tree is not None and Path(tree.path) == expected


def test_no_tree_is_no_error_but_says_where_it_was_looked_for(tmp_path: Path) -> None:
    tree, looked = find_tree(str(tmp_path / "vmlinuz"), RELEASE)
    assert tree is None
    assert f"/lib/modules/{RELEASE}" in looked and str(tmp_path / "modules") in looked


def test_a_folder_that_was_named(tmp_path: Path) -> None:
    expected = place(tmp_path / f"usr/lib/modules/{RELEASE}")
    for given_path in (tmp_path, expected, expected.parent):
        tree, _ = find_tree("vmlinuz", RELEASE, str(given_path))
        assert tree is not None and Path(tree.path) == expected
    loose = tmp_path / "loose"
    put(loose, "deep/er/x.ko")
    tree, _ = find_tree("vmlinuz", "", str(loose))
    assert tree is not None and "x" in tree
    for bad, words in ((tmp_path / "none", "not a folder"), (tmp_path / "usr/lib/modules", None)):
        if words is not None:
            with pytest.raises(ConfigError, match=words):
                find_tree("vmlinuz", RELEASE, str(bad))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"no modules of the kernel {RELEASE}"):
        find_tree("vmlinuz", RELEASE, str(tmp_path / "empty"))


# Which kernel, and what its machine needs


def test_the_release_of_a_bzimage(tmp_path: Path) -> None:
    image = bytearray(0x1000)
    image[0x202:0x206] = b"HdrS"
    image[0x20E:0x210] = (0x300).to_bytes(2, "little")
    text = b"6.1.0-9-amd64 (x@y) #1 SMP\0"
    image[0x500 : 0x500 + len(text)] = text
    assert kernel_release(bytes(image)) == "6.1.0-9-amd64"
    image[0x20E:0x210] = bytes(2)
    assert kernel_release(bytes(image)) == ""
    for hostile in (b"../../etc x\0", b"..\0", b"\xff\0"):
        image[0x20E:0x210] = (0x300).to_bytes(2, "little")
        image[0x500 : 0x500 + len(hostile)] = hostile
        assert "/" not in kernel_release(bytes(image)) and kernel_release(bytes(image)).strip(".") in ("", "\ufffd")


def test_the_release_of_a_vmlinux() -> None:
    banner = b"Linux version %s (%s)\0Linux version 6.7.0-rc1+ (me@here) (gcc) #1\0"
    assert kernel_release(b"\x7fELF" + bytes(500) + banner) == "6.7.0-rc1+"
    with pytest.raises(ConfigError, match="not a Linux kernel"):
        kernel_release(b"\x7fELF" + bytes(500))
    with pytest.raises(ConfigError, match="not a Linux kernel"):
        kernel_release(bytes(1000))


def test_each_device_names_its_modules() -> None:
    class Disk:
        kind = "disk"
        transport = "mmio"

    class Share:
        kind = "share"
        transport = "pci"

    class Mine:
        transport = "pci"

    assert modules_for([Share(), Disk(), object(), Mine()]) == ["virtio_pci", "virtio_mmio", "virtiofs", "virtio_blk"]
    assert all(config_of(name) for name in modules_for([Share(), Disk()]))
    assert config_of("nope") == ""
