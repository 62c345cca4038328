"""Descriptions of devices: text for the command line, documents, and what is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyhv
from pyhv.errors import ConfigError
from pyhv.peripherals import KINDS, class_of, from_document, parse

DEVICES = (
    pyhv.Disk("a.img", readonly=True, serial="x,y=z"),
    pyhv.Disk("b.qcow2", format="qcow2", queues=4, transport="mmio"),
    pyhv.Net.user(forward=("tcp:2222:22", "udp:5353:53")),
    pyhv.Net.tap("tap0", namespace="lab"),
    pyhv.Share("/srv", tag="work", writable=True),
    pyhv.Entropy(rate=1024),
    pyhv.Balloon(size=64 << 20),
    pyhv.Watchdog(action="reset"),
)


@pytest.mark.parametrize(
    ("kind", "text", "made"),
    [
        ("disk", "a.img", pyhv.Disk("a.img")),
        ("disk", "a.img,ro", pyhv.Disk("a.img", readonly=True)),
        ("disk", "path=a.img,readonly=yes,format=qcow2", pyhv.Disk("a.img", readonly=True, format="qcow2")),
        ("disk", "ro,path=a.img", pyhv.Disk("a.img", readonly=True)),
        ("disk", "a,,b.img,ro=off", pyhv.Disk("a,b.img")),
        ("disk", "a.img,rw", pyhv.Disk("a.img")),
        ("disk", "a.qcow2,format=raw", pyhv.Disk("a.qcow2")),
        ("disk", "path=a=b.img,queues=2", pyhv.Disk("a=b.img", queues=2)),
        ("net", "user", pyhv.Net.user()),
        (
            "net",
            "user,forward=tcp:1:2,forward=udp:3:4",
            pyhv.Net.user(forward=("tcp:1:2", "udp:3:4")),
        ),
        ("net", "tap,name=tap0", pyhv.Net.tap("tap0")),
        ("share", "/srv,writable,tag=x", pyhv.Share("/srv", writable=True, tag="x")),
        ("share", "/srv,ro", pyhv.Share("/srv")),
        ("share", "/srv,rw", pyhv.Share("/srv", writable=True)),
        ("vsock", "/run/s,max-connections=5", pyhv.Vsock("/run/s", max_connections=5)),
        ("balloon", "deflate-on-oom", pyhv.Balloon(deflate_on_oom=True)),
        ("entropy", "", pyhv.Entropy()),
        ("balloon", "size=64M", pyhv.Balloon(size=64 << 20)),
        ("watchdog", "wdat,action=reset", pyhv.Watchdog(action="reset")),
    ],
)
def test_text(kind: str, text: str, made: object) -> None:
    assert parse(kind, text) == made


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("modem", "x", "'modem' is not one of"),
        ("disk", "", "disk: path: missing"),
        ("disk", "a.img,colour=red", "disk: 'colour' is not one of path, readonly"),
        ("disk", "a.img,format=vmdk", "disk: format: 'vmdk' is not one of raw, qcow2"),
        ("disk", "a.img,ro=maybe", "disk: readonly: 'maybe' is not yes or no"),
        ("disk", "a.img,queues=many", "disk: queues: 'many' is not a number such as 4, 64K or 256M"),
        ("disk", "a.img,path=b.img", "disk: path: 'b.img' is one too many; it can be given once"),
        ("disk", "a.img,readonly=yes,ro=no", "disk: readonly: 'no' is one too many"),
        ("disk", "a.img,ro,rw", "disk: readonly: 'no' is one too many"),
        ("disk", "a.qcow2,ro", "disk: format: missing for 'a.qcow2'; say format=qcow2, or format=raw if"),
        ("share", "/srv,ro=yes", "share: 'ro' is not one of path, tag"),
        ("net", "user,colour=red", "ipv6, name, namespace, address, bridge, path, listen"),
        ("disk", "a.img,b.img", "disk: 'b.img' is not one of"),
        ("disk", "a.img,transport=usb", "disk: transport: 'usb' is not one of pci, mmio"),
        ("net", "dialup", "net: mode: 'dialup' is not one of"),
        ("net", "peer,object=x", "net: object: can only be given in Python"),
        ("net", "user,forward=22", "net: forward"),
        ("share", "", "share: path: missing"),
        ("watchdog", "wdat,action=bark", "watchdog: action: 'bark' is not one of"),
    ],
)
def test_text_that_is_wrong(kind: str, text: str, says: str) -> None:
    with pytest.raises(pyhv.ConfigError) as caught:
        parse(kind, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.sampled_from(sorted(KINDS)), st.text(max_size=60))
def test_any_text_is_a_description_or_one_line(kind: str, text: str) -> None:
    try:
        made = parse(kind, text)
    except pyhv.ConfigError as error:
        assert str(error).startswith((f"{kind}: ", "devices: "))
    else:
        assert isinstance(made, class_of(kind))


def test_a_path_may_be_a_path_object(tmp_path: Path) -> None:
    path = tmp_path / "x"
    assert pyhv.Disk(path) == pyhv.Disk(str(path))
    assert pyhv.Share(path) == pyhv.Share(str(path))
    assert pyhv.Vsock(path) == pyhv.Vsock(str(path))
    assert pyhv.Console(output=path) == pyhv.Console(str(path))
    assert pyhv.Net.user(pcap=path).pcap == pyhv.Net.socket(path).path == pyhv.Pmem(path).path == str(path)


def test_documents() -> None:
    machine = pyhv.Machine("k", memory="1G", devices=DEVICES)
    assert pyhv.Machine.from_json(machine.to_json()) == machine
    assert pyhv.Machine.from_toml(machine.to_toml()) == machine
    assert pyhv.Machine.from_dict(machine.to_dict()) == machine
    assert machine.to_toml().startswith('kernel = "k"\nmemory = "1G"\n[[devices]]\nkind = "disk"\npath = "a.img"\n')


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"kernel": "k", "devices": {"kind": "disk"}}, "is not a list of tables"),
        ({"kernel": "k", "devices": ["disk"]}, "is not a table with a kind"),
        ({"kernel": "k", "devices": [{"path": "a"}]}, "is not a table with a kind"),
        ({"kernel": "k", "devices": [{"kind": "disk"}]}, "disk: path: missing"),
        ({"kernel": "k", "devices": [{"kind": "disk", "path": 3}]}, "disk: path: 3"),
        ({"kernel": "k", "devices": [{"kind": "disk", "path": "a", "queues": True}]}, "disk: queues: True"),
        ({"kernel": "k", "devices": [{"kind": "disk", "path": "a", "readonly": "yes"}]}, "disk: readonly: 'yes'"),
        ({"kernel": "k", "devices": [{"kind": "net", "forward": "tcp:1:2"}]}, "net: forward: 'tcp:1:2'"),
    ],
)
def test_documents_that_are_wrong(document: dict[str, object], says: str) -> None:
    with pytest.raises(pyhv.ConfigError) as caught:
        pyhv.Machine.from_dict(document)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ((pyhv.Share("/a"), pyhv.Share("/b")), "share: tag: 'share' is there twice; each share of a machine needs another"),
        ((pyhv.Console("a"), pyhv.Console("a", name="x")), "console: output: 'a' is there twice"),
        ((pyhv.Console("a", name="x"), pyhv.Console("b", name="x")), "console: name: 'x' is there twice"),
        ((pyhv.Vsock("a"), pyhv.Vsock("b")), "vsock: cid: 3 is there twice; each vsock of a machine needs another"),
        ((pyhv.Net.user(pcap="a"), pyhv.Net("none", pcap="a")), "net: pcap: 'a' is there twice"),
        ((pyhv.Watchdog(), pyhv.Entropy(), pyhv.Watchdog()), "watchdog: model: 'wdat' is there twice"),
    ],
)
def test_descriptions_that_cannot_be_told_apart(devices: tuple[object, ...], says: str) -> None:
    with pytest.raises(pyhv.ConfigError) as caught:
        pyhv.Machine("k", devices=devices)  # type: ignore[arg-type]
    assert str(caught.value).startswith(says)
    alike = [pyhv.Net.user(), pyhv.Net.user(), pyhv.Console("a"), pyhv.Console("b")]
    assert len(pyhv.Machine("k", devices=alike).devices) == 4
    assert pyhv.Machine("k", devices=devices[:-1]).devices == devices[:-1]  # type: ignore[arg-type]


def test_what_is_no_description() -> None:
    for wrong in ("disk", pyhv.Disk, 7):
        with pytest.raises(pyhv.ConfigError, match="nor a description"):
            pyhv.Machine("k", devices=[wrong])  # type: ignore[list-item]


def test_each_machine_gets_devices_of_its_own(tmp_path: Path) -> None:
    image = tmp_path / "kernel"
    image.write_bytes(b"\xf4")
    machine = pyhv.Machine(image, format="flat", devices=[pyhv.Entropy()])
    with pyhv.Vm(machine, backend="sim") as first, pyhv.Vm(machine, backend="sim") as second:
        assert first.devices[0] is not second.devices[0]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("disk", "path"), ("net", "pcap"), ("net", "namespace"), ("pmem", "path"), ("share", "path"), ("console", "output")],
)
def test_no_text_has_a_nul_in_it(kind, name):
    with pytest.raises(ConfigError) as error:
        from_document({"kind": kind, "path": "x", name: "a\0b"} if kind != "console" else {"kind": kind, name: "a\0b"})
    assert str(error.value) == f"{kind}: {name}: 'a\\x00b' has a NUL in it"
