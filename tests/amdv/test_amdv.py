"""On a real kvm_amd with nested paging (in the rig): the guests, Debian's kernel, the conformance kit."""

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "guests"))

from guest_table import GuestCase
from rig_driver import RIG_CASES

Part = Callable[[str], dict[str, Any]]


def test_the_rig_is_amd_v(part: Part) -> None:
    host = part("host")
    assert "kvm_amd" in host["modules"]
    assert host["kvm_amd"]["npt"] == "Y", "nested paging"
    assert {"svm", "npt"} <= set(host["flags"])


@pytest.mark.parametrize("case", RIG_CASES, ids=str)
def test_guest(part: Part, case: GuestCase) -> None:
    result = part(f"guest-{case}")
    shown = json.dumps(result, indent=1)
    assert (result["outcome"], result["guest_status"]) == (case.outcome.value, case.status), shown
    assert case.matches(result["console"].splitlines()), shown
    assert (result["backend"], "kvm_amd" in result["backend_reason"]) == ("kvm", True)


@pytest.mark.parametrize(
    ("name", "format", "cpus"),
    [
        ("linux-1", "bzimage", 1),
        ("linux-2", "bzimage", 2),
        ("linux-pvh", "pvh", 1),
        ("linux-hugepages", "bzimage", 1),
        ("linux-irqchip", "bzimage", 2),
    ],
)
def test_debian_reaches_userspace_and_powers_off(part: Part, name: str, format: str, cpus: int) -> None:
    result = part(name)
    lines = result["console"].splitlines()
    assert "pyhv: userspace reached" in lines, result["console"]
    assert f"pyhv: cpus {cpus}" in lines
    assert any("reboot: Power down" in line for line in lines)
    assert (result["outcome"], result["exit_code"]) == ("power-off", 0), result["detail"]
    assert result["format"] == format
    assert result["guest_status"] is None


def test_a_command_inside_linux_with_disk_network_and_folder(part: Part) -> None:
    ran = part("linux-devices")
    shown = json.dumps(ran, indent=1)
    assert ran["stdout"].splitlines() == [ran["release"], f"{ran['read']}  -", "greetings from the host"], shown
    assert ran["stderr"] == "apart\n", shown
    assert ran["status"] == 9, shown
    assert (ran["disk"], ran["shared"]) == ("changed\n", "shared\n"), shown


def test_nested_tables_map_small_pages(part: Part) -> None:
    pages = part("pages-4k")["kvm"]
    assert pages["pages_4k"] >= 226, "the guest touches as many"
    assert pages["pages_2m"] == 0


@pytest.mark.parametrize("name", ["pages-2m", "linux-hugepages"])
def test_nested_tables_map_2m_pages_where_asked_for(part: Part, name: str) -> None:
    pages = part(name)["kvm"]
    assert pages["pages_2m"] >= (2 if name == "pages-2m" else 16)


def test_the_command_accepts_this_host(part: Part) -> None:
    ran = part("command")
    result = json.loads(ran["stdout"])
    assert ran["status"] == 0 and result["ok"], ran
    assert ran["stderr"].startswith(
        "hello from a pyhv guest (multiboot, 32-bit)\nhello: ok\npyhv: passed (status 0) on kvm"
    )


def test_avic_is_reported_absent_with_the_reason(part: Part) -> None:
    result = part("guest-hello")
    assert result["avic"] is False and "avic" in result["avic_reason"].lower()


def test_doctor(part: Part) -> None:
    report = json.loads(part("doctor")["stdout"])
    found = {finding["name"]: finding for finding in report["findings"]}
    states = {
        name: found[name]["state"] for name in ("KVM", "SVM", "NPT", "AVIC", "SEV", "SEV-ES", "SEV-SNP", "hugepages 2M")
    }
    assert states == {
        "KVM": "yes",
        "SVM": "yes",
        "NPT": "yes",
        "AVIC": "no",
        "SEV": "no",
        "SEV-ES": "no",
        "SEV-SNP": "no",
        "hugepages 2M": "yes",
    }
    for name, finding in found.items():
        assert finding["reason"], name
    assert "kvm_amd" in report["backend_reason"]


def test_conformance(part: Part, rig: Any) -> None:
    report = part("conformance")
    path = rig.artifacts / "conformance.xml"
    assert path.exists(), report["stdout"]
    cases = list(ET.parse(path).iter("testcase"))
    bad = [
        f"{c.get('classname')}::{c.get('name')}"
        for c in cases
        if c.find("failure") is not None or c.find("error") is not None
    ]
    passed = [c for c in cases if not len(c)]
    assert report["status"] == 0 and not bad, "\n".join([*bad, report["stdout"]])
    assert len(passed) > 50, report["stdout"]
