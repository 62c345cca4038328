"""Enumerations that cost nothing to import: `Enum` and `IntEnum` as far as this library uses them.

The standard module costs a tenth of a tiny guest's whole run. Type checkers see the standard classes. Members have `name` and
`value`; the class gives a member by value (`Outcome("passed")`), iterates over its members, and counts them.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from enum import Enum, IntEnum
else:

    class _Members(type):
        def __new__(meta, name, bases, namespace):
            values = {
                key: value
                for key, value in namespace.items()
                if not key.startswith("_") and isinstance(value, (int, str, tuple))
            }
            rest = {key: value for key, value in namespace.items() if key not in values}
            cls = super().__new__(meta, name, bases, rest)
            cls._by_value = {}
            for key, value in values.items():
                member = int.__new__(cls, value) if issubclass(cls, int) else object.__new__(cls)
                member.name, member.value = key, value
                cls._by_value[value] = member
                type.__setattr__(cls, key, member)
            return cls

        def __call__(cls, value):
            try:
                return cls._by_value[value]
            except (KeyError, TypeError):
                raise ValueError(f"{value!r} is not a valid {cls.__name__}") from None

        def __getitem__(cls, name):
            member = cls.__dict__.get(name)
            if not isinstance(member, cls):
                raise KeyError(name)
            return member

        def __iter__(cls):
            return iter(cls._by_value.values())

        def __len__(cls):
            return len(cls._by_value)

        def __setattr__(cls, name, value):
            if not name.startswith("_"):
                raise AttributeError(f"{cls.__name__}.{name} cannot be changed: it is an enumeration")
            type.__setattr__(cls, name, value)

    class Enum(metaclass=_Members):
        """Named constants; members are compared by identity."""

        def __repr__(self):
            return f"{type(self).__name__}.{self.name}"

        def __reduce__(self):
            return type(self), (self.value,)

    class IntEnum(int, Enum, metaclass=_Members):
        """Named integers."""

        __repr__ = Enum.__repr__
        __reduce__ = Enum.__reduce__


__all__ = ["Enum", "IntEnum"]
