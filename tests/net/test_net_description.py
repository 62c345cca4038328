"""pyhv.Net: fields, text, documents, and the backends that come of them."""

import subprocess
import sys

import pytest

from pyhv.errors import ConfigError
from pyhv.net import Peer
from pyhv.net.backend import NetBackend
from pyhv.net.peer import PeerBackend
from pyhv.net.stream import StreamBackend
from pyhv.net.tap import TapBackend
from pyhv.net.user import UserBackend
from pyhv.peripherals import from_document, parse, to_document
from pyhv.peripherals.net import Net


@pytest.mark.parametrize(
    ("text", "net", "document"),
    [
        ("user", Net.user(), {}),
        (
            "user,forward=tcp:2222:22,forward=udp:0.0.0.0:53:53,restrict",
            Net.user(forward=["tcp:2222:22", "udp:0.0.0.0:53:53"], restrict=True),
            {"forward": ["tcp:2222:22", "udp:0.0.0.0:53:53"], "restrict": True},
        ),
        ("tap,name=tap0,namespace=x", Net.tap("tap0", namespace="x"), {"mode": "tap", "name": "tap0", "namespace": "x"}),
        ("tap,ifname=a,netns=b", Net.tap(name="a", namespace="b"), {"mode": "tap", "name": "a", "namespace": "b"}),
        ("socket,path=/x,listen", Net.socket("/x", listen=True), {"mode": "socket", "path": "/x", "listen": True}),
        (
            "none,mac=02:00:00:00:00:09,mtu=1400,link=no,pcap=x.pcap",
            Net("none", mac="02:00:00:00:00:09", mtu=1400, link=False, pcap="x.pcap"),
            {"mode": "none", "mac": "02:00:00:00:00:09", "mtu": 1400, "link": False, "pcap": "x.pcap"},
        ),
    ],
)
def test_text_and_documents(text, net, document):
    assert parse("net", text) == net
    assert to_document(net) == {"kind": "net", **document}
    assert from_document(to_document(net)) == net


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bogus", "net: mode: 'bogus' is not one of user, tap, socket, peer, none"),
        ("user,name=tap0", "net: name: 'tap0' is for mode tap; this is mode user"),
        ("tap,forward=tcp:1:2", "net: forward: 'tcp:1:2' is for mode user; this is mode tap"),
        ("user,forward=tcp:1", "net: forward: 'tcp:1' is not tcp:[HOST:]PORT:[GUEST:]PORT or udp:..."),
        ("user,mtu=67", "net: mtu: '67' is not from 68 to 65521"),
        ("user,mac=x", "net: mac: 'x' is not an address such as 02:00:00:00:00:01"),
        ("user,transport=usb", "net: transport: 'usb' is not one of pci, mmio"),
        ("socket", "net: path: missing; mode socket needs one"),
        ("tap,name=0123456789abcdef", "net: name: '0123456789abcdef' is not an interface's name of at most 15 bytes"),
        ("tap,name=\udcff/", "net: name: '\\udcff/' is not an interface's name of at most 15 bytes"),
        ("tap,name=a/b", "net: name: 'a/b' is not an interface's name of at most 15 bytes"),
        ("tap,address=10.0.0.1", "net: address: '10.0.0.1' is not an address with a prefix such as 10.0.0.1/24"),
        ("tap,address=10.0.0.1/33", "net: address: '10.0.0.1/33' is not an address with a prefix such as 10.0.0.1/24"),
        ("peer", "net: object: None is not a pyhv.net.Peer, which mode peer needs (in Python)"),
        ("peer,object=x", "net: object: can only be given in Python"),
    ],
)
def test_mistakes_are_one_line(text, message):
    with pytest.raises(ConfigError) as raised:
        parse("net", text)
    assert str(raised.value) == message


def test_values_of_the_wrong_type_are_mistakes():
    with pytest.raises(ConfigError, match=r"^net: mtu: '1500' is not a number$"):
        Net("user", mtu="1500")
    with pytest.raises(ConfigError, match=r"^net: forward: 'tcp:1:2' is not a list of forwards$"):
        Net("user", forward="tcp:1:2")
    with pytest.raises(ConfigError, match=r"^net: forward: 'tcp:1:2' is not a list of forwards$"):
        Net.user(forward="tcp:1:2")
    with pytest.raises(ConfigError, match=r"is not a pyhv\.net\.Peer"):
        Net.peer(object())


def test_a_peer_is_not_for_documents():
    with pytest.raises(ConfigError, match="cannot be saved in a document"):
        to_document(Net.peer(Peer()))


@pytest.mark.parametrize(
    ("net", "kind"),
    [
        (Net.user(), UserBackend),
        (Net.tap("x"), TapBackend),
        (Net.socket("/x"), StreamBackend),
        (Net.peer(Peer()), PeerBackend),
        (Net("none"), NetBackend),
    ],
)
def test_devices_are_what_the_description_says(net, kind):
    device = net.build()
    assert type(device.backend) is kind
    assert device.live == (kind not in (PeerBackend, NetBackend))
    assert device.transport == "pci"


def test_a_description_loads_nothing_that_only_a_device_needs():
    code = "import sys; from pyhv.peripherals.net import Net; Net.user(); Net.tap('a'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pyroute2", "pyhv.virtio.net", "pyhv.net.user", "pyhv.net.tap", "cffi", "socket"} & set(loaded)
