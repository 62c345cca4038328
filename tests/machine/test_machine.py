"""The description of a machine: what it takes, what it refuses by name, and its documents."""

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pyhv
from pyhv.machine import FORMATS, HUGEPAGES, IRQCHIPS, MAX_CPUS, MAX_MEMORY, MIN_MEMORY, ON_RESET, UNPACK

REFUSED: dict[str, list[Any]] = {
    "kernel": ["", None, 7, "a\0b", b"bytes"],
    "initrd": ["", 7, "a\0b", ["x"]],
    "cmdline": [None, 7, "a\0b", b"quiet"],
    "modules": ["one string", None, 7, [7], ["a\0b"]],
    "memory": ["banana", "", "-1", "1.5G", "12Q", 0, -5, 1, None, 1.5, True, MIN_MEMORY - 1, MAX_MEMORY + 1, "9" * 40],
    "cpus": [0, -1, MAX_CPUS + 1, 10_000, "2", 1.0, None, True],
    "format": ["", "exe", None, 7],
    "devices": [[7], ["serial"], [pyhv.MmioDevice]],
    "cpu": [None, 7, "a\0b"],
    "features": ["+avx", ["avx"], ["+"], [7], None],
    "irqchip": ["none", "", None],
    "hugepages": ["4M", "", None, True],
    "debug_exit": [-1, 0x10000, 0xFFFF, "0xf4", True, 1.0],
    "load_address": [-1, 1 << 32, None, "0x7c00"],
    "entry": [-1, 1 << 32, "0x7c00"],
    "on_reset": ["again", "", None],
    "date": ["", "yesterday", "1969-12-31", "2026-13-01", 2026, "2026-01-01T25:00", "1970-01-01T00:00+01:00", "0001-01-01"],
    "unpack": ["maybe", "", None, True],
    "firmware": ["", 7, "a\0b", ["x"], b"bytes"],
    "name": [None, 7],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in REFUSED.items() for v in values], ids=repr)
def test_what_makes_no_sense_is_refused_by_the_fields_name(field: str, value: Any) -> None:
    with pytest.raises(pyhv.ConfigError) as caught:
        pyhv.Machine(**({"kernel": "k"} | {field: value}))
    message = str(caught.value)
    assert message.startswith(f"{field}: ")
    assert "\n" not in message


def test_every_field_has_a_value_that_is_refused() -> None:
    from pyhv.record import field_names

    assert set(REFUSED) == set(field_names(pyhv.Machine))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1M", 1 << 20),
        ("64m", 64 << 20),
        ("1GiB", 1 << 30),
        (" 512 MB ", 512 << 20),
        (1 << 21, 1 << 21),
        ("1048577", 0x101000),
    ],
)
def test_memory_sizes(text: str | int, size: int) -> None:
    assert pyhv.Machine("k", memory=text).memory == size


def test_paths_may_be_objects() -> None:
    machine = pyhv.Machine(Path("dir/k"), initrd=Path("rd"))
    assert (machine.kernel, machine.initrd) == ("dir/k", "rd")


def test_it_is_a_value() -> None:
    machine = pyhv.Machine("k", cpus=2, modules=["a", "b"])
    assert machine == pyhv.Machine("k", cpus=2, modules=("a", "b"))
    assert machine != machine.replace(cpus=3)
    assert machine == machine.replace(name="another name")
    assert len({machine, machine.replace(cpus=2)}) == 1
    assert pickle.loads(pickle.dumps(machine)) == machine
    with pytest.raises(AttributeError):
        machine.cpus = 3
    with pytest.raises(AttributeError):
        del machine.cpus
    with pytest.raises(pyhv.ConfigError, match="cpus: 0"):
        machine.replace(cpus=0)
    with pytest.raises(TypeError, match="wheels"):
        machine.replace(wheels=4)


text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
name = text.filter(bool)
address = st.integers(0, (1 << 32) - 1)
machines = st.fixed_dictionaries(
    {"kernel": name},
    optional={
        "initrd": st.none() | name,
        "cmdline": text,
        "modules": st.lists(text, max_size=3),
        "memory": st.integers(MIN_MEMORY, MAX_MEMORY) | st.sampled_from(["1M", "3G", "2049K"]),
        "cpus": st.integers(1, MAX_CPUS),
        "format": st.sampled_from(FORMATS),
        "cpu": text,
        "features": st.lists(st.tuples(st.sampled_from("+-"), name).map("".join), max_size=3),
        "irqchip": st.sampled_from(IRQCHIPS),
        "hugepages": st.sampled_from(HUGEPAGES),
        "debug_exit": st.none() | st.integers(0, 0xFFFC),
        "load_address": address,
        "entry": st.none() | address,
        "on_reset": st.sampled_from(ON_RESET),
        "date": st.none() | st.datetimes(datetime(1970, 1, 2), timezones=st.none() | st.just(UTC)).map(datetime.isoformat),
        "unpack": st.sampled_from(UNPACK),
        "name": text,
    },
)


@given(machines)
def test_documents_give_the_machine_back(fields: dict[str, Any]) -> None:
    machine = pyhv.Machine(**fields)
    again = (
        pyhv.Machine.from_dict(machine.to_dict()),
        pyhv.Machine.from_json(machine.to_json()),
        pyhv.Machine.from_toml(machine.to_toml()),
        pyhv.Machine.from_dict(json.loads(json.dumps(machine.to_dict()))),
    )
    for other in again:
        assert other == machine
        assert other.name == machine.name


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(REFUSED)) | st.text(max_size=8), values, max_size=4), st.booleans())
def test_any_document_gives_a_machine_or_a_config_error(document: dict[str, Any], kernel: bool) -> None:
    if kernel:
        document["kernel"] = "k"
    try:
        machine = pyhv.Machine.from_dict(document)
    except pyhv.ConfigError as error:
        assert "\n" not in str(error)
    else:
        assert pyhv.Machine.from_dict(machine.to_dict()) == machine


@given(st.text(max_size=60))
def test_any_text_gives_a_machine_or_a_config_error(document: str) -> None:
    for read in (pyhv.Machine.from_json, pyhv.Machine.from_toml):
        with pytest.raises(pyhv.ConfigError):
            read(document)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ('{"cpus": 2}', "kernel: missing"),
        ('{"kernel": "k", "wheels": 4}', "wheels: not a field"),
        ('{"kernel": "k", "devices": 3}', "devices: 3 is not a list"),
        ('{"kernel": "k", "devices": [{"kind": "modem"}]}', "'modem' is not one of"),
        ("[]", "not an object"),
        ("{", "not JSON"),
        ('{"kernel": "k"} x', "not JSON"),
    ],
)
def test_documents_that_are_wrong(document: str, says: str) -> None:
    with pytest.raises(pyhv.ConfigError, match=says):
        pyhv.Machine.from_json(document)


@pytest.mark.parametrize("document", ["[" * 100_000, '{"kernel": ' + "9" * 5000 + "}"], ids=["deep", "long number"])
def test_documents_that_break_parsers(document: str) -> None:
    with pytest.raises(pyhv.ConfigError):
        pyhv.Machine.from_json(document)
    with pytest.raises(pyhv.ConfigError):
        pyhv.Machine.from_toml("kernel = " + document)


def test_python_devices_are_no_document() -> None:
    class Lamp(pyhv.PioDevice):
        name = "lamp"

    machine = pyhv.Machine("k", devices=[Lamp()])
    with pytest.raises(pyhv.ConfigError, match=r"devices: lamp: .* cannot be saved"):
        machine.to_dict()


def test_to_dict_leaves_out_defaults() -> None:
    assert pyhv.Machine("k").to_dict() == {"kernel": "k"}
    assert pyhv.Machine("k", memory="1G", debug_exit=None).to_toml() == (
        'kernel = "k"\nmemory = "1G"\ndebug_exit = "none"\n'
    )
