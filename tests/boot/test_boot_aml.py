"""The AML encoder, against encodings that the specification spells out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.boot import aml


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a02"),
        (0xFF, "0aff"),
        (0x100, "0b0001"),
        (0x10000, "0c00000100"),
        (1 << 32, "0e0000000001000000"),
    ],
)
def test_integers(value: int, expected: str) -> None:
    assert aml.integer(value).hex() == expected


def _read_package_length(data: bytes) -> int:
    extra = data[0] >> 6
    if not extra:
        return data[0] & 0x3F
    return data[0] & 0xF | int.from_bytes(data[1 : 1 + extra], "little") << 4


@given(st.integers(0, (1 << 28) - 5))
def test_package_length_counts_itself(content: int) -> None:
    encoded = aml.package_length(content)
    assert _read_package_length(encoded) == content + len(encoded)


def test_too_long() -> None:
    with pytest.raises(ValueError, match="too long"):
        aml.package_length(1 << 28)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("_SB", b"_SB_"),
        ("\\_S5", b"\\_S5_"),
        ("\\", b"\\\0"),
        ("^X", b"^X___"),
        ("\\_SB.PCI0", b"\\\x2e_SB_PCI0"),
        ("A.B.C", b"\x2f\x03A___B___C___"),
    ],
)
def test_names(path: str, expected: bytes) -> None:
    assert aml.name_string(path) == expected


@pytest.mark.parametrize("path", ["LONGER", "a", "1A", "A..B", "A-B"])
def test_names_that_are_none(path: str) -> None:
    with pytest.raises(ValueError, match="not an AML name"):
        aml.name_string(path)


def test_eisa_identifiers() -> None:
    assert aml.eisa_id("PNP0501").hex() == "0c41d00501"
    assert aml.eisa_id("PNP0A03").hex() == "0c41d00a03"


def test_a_device() -> None:
    assert aml.device("COM1", aml.name("_UID", aml.integer(1))) == b"\x5b\x82\x0bCOM1\x08_UID\x01"


def test_resources_end_with_an_end_tag() -> None:
    data = aml.resources(aml.io(0x3F8, 8), aml.irq(4))
    assert data.hex() == "1110" + "0a0d" + "4701f803f8030108" + "221000" + "7900"


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (aml.argument(0), "68"),
        (aml.argument(6), "6e"),
        (aml.store(aml.argument(0), aml.name_string("PICM")), "70" + "68" + b"PICM".hex()),
        (aml.either(aml.argument(1), aml.integer(4), aml.argument(1)), "7d" + "69" + "0a04" + "69"),
        (aml.when(aml.equal(aml.argument(0), aml.integer(1)), aml.returns(aml.integer(0))), "a0" + "06" + "936801" + "a400"),
        (aml.create_dword_field(aml.argument(3), 4, "CDW2"), "8a" + "6b" + "0a04" + b"CDW2".hex()),
    ],
)
def test_terms_of_methods(term: bytes, expected: str) -> None:
    assert term.hex() == expected


def test_a_uuid_has_its_first_groups_reversed() -> None:
    data = aml.uuid("aabbccdd-eeff-0011-2233-445566778899")
    assert data.hex() == "1113" + "0a10" + "ddccbbaa" + "ffee" + "1100" + "2233" + "445566778899"
