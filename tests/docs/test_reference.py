"""What the reference says of fields, outcomes and addresses is what the code has; links and make targets exist."""

import inspect
import re

import pytest
from documents import DOCUMENTS, ROOT, table

import pyhv
from pyhv.cli.arguments import COMMANDS
from pyhv.record import field_names

REFERENCE = ROOT / "docs" / "reference"
API, DEVICES, CLI = REFERENCE / "api.md", REFERENCE / "devices.md", REFERENCE / "cli.md"


def test_fields_of_a_machine():
    rows = {row[0]: row[1] for row in table(API, "## Machine")}
    assert list(rows) == list(field_names(pyhv.Machine))
    for name, parameter in inspect.signature(pyhv.Machine.__init__).parameters.items():
        if name == "self":
            continue
        default = parameter.default
        if default is inspect.Parameter.empty:
            assert rows[name] == "required"
        else:
            assert eval(rows[name], {}) == default, name


def test_fields_of_a_result():
    assert [row[0] for row in table(API, "## Result")] == list(field_names(pyhv.Result))


def test_outcomes():
    rows = table(API, "`ok` and `exit_code` follow from the outcome:")
    assert [row[0] for row in rows] == [outcome.name for outcome in pyhv.Outcome]
    for name, value, passed, status in rows:
        outcome = getattr(pyhv.Outcome, name)
        assert (outcome.value, outcome.ok, outcome.exit_code) == (value, passed == "yes", int(status))


@pytest.mark.parametrize(
    ("path", "heading"), [(CLI, "## Exit status"), (ROOT / "README.md", "## A run")], ids=["cli", "readme"]
)
def test_exit_statuses(path, heading):
    from pyhv.cli import EXIT_INTERRUPTED, EXIT_USAGE

    said = {int(row[0]) for row in table(path, heading)}
    assert said == {outcome.exit_code for outcome in pyhv.Outcome} | {EXIT_INTERRUPTED, EXIT_USAGE}


def test_every_command_has_its_section():
    text = CLI.read_text()
    assert all(f"## pyhv {name}\n" in text for name in COMMANDS)


def test_devices_as_options():
    from pyhv.peripherals import KINDS, class_of

    rows = [(row[0].split(), row[1]) for row in table(CLI, "the descriptions that the library has:\n")]
    kinds = {words[-1].lstrip("-"): main.strip("`") for words, main in rows}
    assert kinds == {kind: getattr(class_of(kind), "main", "") for kind in KINDS}
    options = {option.name for option in COMMANDS["run"].options if option.key == "devices"}
    assert options == {words[0] for words, _ in rows}


def test_addresses(guest):
    machine = pyhv.Machine(guest("hello"))
    with pyhv.Vm(machine) as vm:
        spaces = {"## I/O ports": vm.pc.ports, "## Physical addresses": vm.pc.mmio}
        with vm.lock:
            for space in spaces.values():
                for start, _end, _unit in list(space._deferred):
                    space.find(start)
        for heading, space in spaces.items():
            real = [(f"{m.base:#x}-{m.end - 1:#x}", m.name, str(m.width)) for m in space.mappings]
            assert [tuple(row[:3]) for row in table(DEVICES, heading)] == real


def test_the_architecture_names_every_part():
    text = (ROOT / "docs" / "architecture.md").read_text()
    parts = [path.name + "/" for path in (ROOT / "pyhv").iterdir() if (path / "__init__.py").exists()]
    parts += [path.name for path in (ROOT / "pyhv").glob("*.py") if path.stem.strip("_") == path.stem]
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=[str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_links_and_make_targets_exist(path):
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", text):
        assert target.startswith("http") or (path.parent / target).exists(), target
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^ +|^)make ([a-z][\w-]*)", text, re.MULTILINE))
    assert named <= targets
