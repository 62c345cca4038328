"""A command line read by tables: options that convert and check themselves, help made of the same tables.

`argparse` would cost a third of the time that a whole run of a tiny guest takes. The syntax is the usual one: `--name VALUE`,
`--name=VALUE`, `-n VALUE`, flags, positionals anywhere, `--` ends the options.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.record import record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

HELP = ("--help", "-h")


class UsageError(Exception):
    """A command line that cannot be read; the text is one line."""


class HelpWanted(Exception):
    """--help was given; the text is the help."""


@record(frozen=True)
class Option:
    """One option. `convert` raises ValueError with what is allowed; a `flag` takes no value; `many` collects a list."""

    name: str
    help: str
    metavar: str = ""
    short: str = ""
    alias: str = ""
    default: Any = None
    convert: Callable[[str], Any] | None = None
    flag: bool = False
    count: bool = False
    many: bool = False
    key: str = ""

    @property
    def attribute(self) -> str:
        """The name of its value in `Values`."""
        return self.key or self.name.lstrip("-").replace("-", "_")


@record(frozen=True)
class Positional:
    """One argument without a name."""

    name: str
    help: str
    required: bool = True


class Values:
    """What was given, as attributes."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no option {name}")


@record(frozen=True)
class Command:
    """A command: `function` names the module whose `command(options)` implements it, imported when it is called.

    `trailing` is what the words are that follow `--` once all positionals are there: a list, None without `--`.
    """

    name: str
    summary: str
    function: str
    options: tuple[Option, ...] = ()
    positionals: tuple[Positional, ...] = ()
    trailing: Positional | None = None

    def parse(self, arguments: Sequence[str]) -> Values:
        """Read the arguments after the command's name. Raises UsageError, HelpWanted."""
        names = {n: o for o in self.options for n in (o.name, o.short, o.alias) if n}
        values: dict[str, Any] = {
            o.attribute: [] if o.many else 0 if o.count else False if o.flag else o.default for o in self.options
        }
        if self.trailing is not None:
            values[self.trailing.name.lower()] = None
        rest: list[str] = []
        words = iter(arguments)
        for word in words:
            if word == "--" and self.trailing is not None and len(rest) >= len(self.positionals):
                values[self.trailing.name.lower()] = list(words)
            elif word == "--":
                rest += words
            elif word in HELP:
                raise HelpWanted(self.help())
            elif word.startswith("-") and word != "-":
                self._option(word, names, words, values)
            else:
                rest.append(word)
        return Values(values | self._positional(rest))

    def _option(self, word: str, names: dict[str, Option], words: Any, values: dict[str, Any]) -> None:
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        option = names.get(name)
        if option is None and not word.startswith("--"):
            if word[1:] == word[1] * len(word[1:]) and (short := names.get(word[:2])) is not None and short.count:
                values[short.attribute] += len(word) - 1
                return
            name, value, equals = word[:2], word[2:], "="
            option = names.get(name)
            if option is not None and (option.flag or option.count):
                option = None
        if option is None:
            raise UsageError(f"unknown option {word!r} (see pyhv {self.name} --help)")
        if option.flag or option.count:
            if equals:
                raise UsageError(f"{name}: takes no value, got {value!r}")
            values[option.attribute] = values[option.attribute] + 1 if option.count else True
            return
        if not equals:
            following = next(words, None)
            if following is None:
                raise UsageError(f"{name}: needs a value ({option.metavar})")
            value = following
        converted: Any = value
        if option.convert is not None:
            try:
                converted = option.convert(value)
            except ValueError as error:
                raise UsageError(f"{name}: {value!r} is not {error}") from None
        if option.many:
            values[option.attribute].append(converted)
        else:
            values[option.attribute] = converted

    def _positional(self, rest: list[str]) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for positional in self.positionals:
            if rest:
                out[positional.name.lower()] = rest.pop(0)
            elif positional.required:
                raise UsageError(f"{positional.name} is missing (see pyhv {self.name} --help)")
            else:
                out[positional.name.lower()] = None
        if rest:
            raise UsageError(f"unexpected argument {rest[0]!r} (see pyhv {self.name} --help)")
        return out

    def help(self) -> str:
        """The text of --help."""
        names = " ".join(p.name if p.required else f"[{p.name}]" for p in self.positionals)
        rows = [(p.name, p.help) for p in self.positionals]
        if self.trailing is not None:
            names += f" [-- {self.trailing.name} [ARG...]]"
            rows.append((self.trailing.name, self.trailing.help))
        for option in self.options:
            forms = ", ".join(n for n in (option.name, option.alias, option.short) if n)
            rows.append((f"{forms} {option.metavar}".rstrip(), option.help + (" (repeatable)" if option.many else "")))
        rows.append(("--help, -h", "show this"))
        lines = [f"usage: pyhv {self.name} [OPTION...] {names}".rstrip(), "", self.summary, ""]
        lines += [f"  {left:<28} {right}" if len(left) <= 28 else f"  {left}\n  {'':28} {right}" for left, right in rows]
        return "\n".join(lines)


def integer(text: str) -> int:
    """4, 0x7c00."""
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError("an integer, as in 4 or 0x7c00") from None


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError("a number of seconds above 0")
    return value


def choice(allowed: tuple[str, ...]) -> Callable[[str], str]:
    """One of these words."""

    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return convert
