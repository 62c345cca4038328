"""The command line's tables: forms of options, their values, and any words at all."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.cli.arguments import COMMANDS, RUN, as_option, parse
from pyhv.cli.options import HelpWanted, UsageError, integer, seconds


def run(line: str) -> dict[str, object]:
    return vars(RUN.parse(shlex.split(line)))


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("k", "kernel", "k"),
        ("k --memory 1G", "memory", "1G"),
        ("k --memory=1G", "memory", "1G"),
        ("--memory=1G k", "memory", "1G"),
        ("k -m 1G", "memory", "1G"),
        ("k -m1G", "memory", "1G"),
        ("k --memory 1G --memory 2G", "memory", "2G"),
        ("k --cmdline 'a=b c'", "cmdline", "a=b c"),
        ("k --cmdline=--quiet", "cmdline", "--quiet"),
        ("k --cmdline --quiet", "cmdline", "--quiet"),
        ("k --append x", "cmdline", "x"),
        ("k --cmdline ''", "cmdline", ""),
        ("k --module 'a b' --module c", "modules", ["a b", "c"]),
        ("k --feature +avx --feature -smep", "features", ["+avx", "-smep"]),
        ("k", "features", []),
        ("k --cpus 0x10", "cpus", 16),
        ("k --debug-exit none", "debug_exit", None),
        ("k --debug-exit 0x501", "debug_exit", 0x501),
        ("k --timeout 0.5", "timeout", 0.5),
        ("k", "timeout", None),
        ("k --json", "json", True),
        ("k", "json", False),
        ("k -v", "verbose", 1),
        ("k -vv -v", "verbose", 3),
        ("k -q", "quiet", True),
        ("k --require kvm --require amd-v", "require", ["kvm", "amd-v"]),
        ("-- --odd-name", "kernel", "--odd-name"),
        ("k -- ls --json --", "command", ["ls", "--json", "--"]),
        ("k -- ls --json", "json", False),
        ("k --", "command", []),
        ("k", "command", None),
        ("-- k", "command", None),
        ("-", "kernel", "-"),
    ],
)
def test_forms(line: str, key: str, value: object) -> None:
    assert run(line)[key] == value


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "KERNEL is missing"),
        ("k l", "unexpected argument 'l'"),
        ("-- k l", "unexpected argument 'l'"),
        ("k --transport isa -- l", "--transport: 'isa' is not one of pci, mmio"),
        ("k --nothing", "unknown option '--nothing'"),
        ("k --mem 1G", "unknown option '--mem'"),
        ("k -x", "unknown option '-x'"),
        ("k -qv", "unknown option '-qv'"),
        ("k --memory", "--memory: needs a value"),
        ("k --json=1", "--json: takes no value"),
        ("k --cpus ''", "--cpus: '' is not an integer"),
        ("k --timeout inf", "--timeout: 'inf' is not"),
        ("k --timeout -1", "--timeout: '-1' is not"),
        ("k --backend KVM", "--backend: 'KVM' is not one of auto, kvm, sim"),
    ],
)
def test_mistakes(line: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        run(line)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@given(
    st.lists(
        st.sampled_from([*(n for o in RUN.options for n in (o.name, o.short) if n), "--", "k"]) | st.text(max_size=6)
    )
)
def test_any_words(words: list[str]) -> None:
    for name in COMMANDS:
        try:
            command, values = parse([name, *words])
        except UsageError as error:
            assert str(error)
        except HelpWanted as text:
            assert str(text).startswith(f"usage: pyhv {name}")
        else:
            for option in command.options:
                getattr(values, option.attribute)
            with pytest.raises(AttributeError):
                values.no_such_option  # noqa: B018


@given(st.integers(-(1 << 70), 1 << 70))
def test_integers(value: int) -> None:
    assert integer(str(value)) == integer(hex(value)) == value


@given(st.text(max_size=10))
def test_numbers_from_any_text(text: str) -> None:
    for convert in (integer, seconds):
        try:
            assert isinstance(convert(text), (int, float))
        except ValueError as error:
            assert str(error).startswith(("an integer", "a number of seconds"))


def test_help_names_everything() -> None:
    for command in COMMANDS.values():
        text = command.help()
        for option in command.options:
            assert option.name in text and option.help in text
        assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("message", "words", "told"),
    [
        ("memory: 7 is odd", ["run", "k", "--memory", "7"], "--memory: 7 is odd"),
        ("memory: 7 is odd", ["run", "k", "--memory=7"], "--memory: 7 is odd"),
        ("memory: 7 is odd", ["run", "k"], "memory: 7 is odd"),
        ("features: x", ["--feature", "x"], "--feature: x"),
        ("debug_exit: x", ["--debug-exit", "x"], "--debug-exit: x"),
        ("modules: x", ["--module", "x"], "--module: x"),
        ("modules: x", ["--modules=x"], "--modules: x"),
        ("root: x", ["--root", "x"], "--root: x"),
        ("share: path: '/proc': x", ["--root", "/proc"], "--root: '/proc': x"),
        ("share: path: '/x': y", ["--root", "/proc", "--share", "/x"], "--share: path: '/x': y"),
        ("writable: x", ["--root-writable"], "--root-writable: x"),
        ("memory: x", ["-m", "x"], "--memory: x"),
        ("memory: x", ["-mx"], "--memory: x"),
        ("cmdline: x", ["--append=x"], "--cmdline: x"),
        ("memory: x", ["k", "--", "date", "-m", "--memory"], "memory: x"),
        ("kernel: 'x': y", ["run", "x"], "KERNEL: 'x': y"),
        ("disk: path: x", ["--disk", "x"], "--disk: path: x"),
        ("disk: path: x", ["--device", "disk,x"], "--device disk: path: x"),
        ("devices: x", ["--device", "x"], "--device: x"),
        ("/a/path: x", ["--memory"], "/a/path: x"),
        ("no colon", ["--no"], "no colon"),
    ],
)
def test_fields_are_told_as_options(message: str, words: list[str], told: str) -> None:
    assert as_option(message, words) == told
