import copy
import pickle

import pytest

from pyhv.enums import Enum, IntEnum


class Colour(Enum):
    RED = "red"
    BLUE = "blue"

    @property
    def loud(self) -> bool:
        return self is Colour.RED


class Level(IntEnum):
    LOW = 1
    HIGH = 2


def test_members_by_name_by_value_and_in_order() -> None:
    assert Colour("red") is Colour.RED is Colour["RED"]
    assert [c.value for c in Colour] == ["red", "blue"]
    assert len(Level) == 2
    assert Colour.RED.loud and not Colour.BLUE.loud
    assert repr(Colour.RED) == "Colour.RED"


def test_what_is_no_member_is_refused() -> None:
    with pytest.raises(ValueError, match="not a valid Colour"):
        Colour("green")
    with pytest.raises(KeyError):
        Colour["GREEN"]
    with pytest.raises(KeyError):
        Colour["loud"]
    with pytest.raises(AttributeError):
        Colour.RED = 3  # type: ignore[misc, assignment]


def test_integer_members_are_integers() -> None:
    assert Level.HIGH == 2 and Level.LOW < Level.HIGH and Level(1) is Level.LOW
    assert {2: "x"}[Level.HIGH] == "x"


def test_members_survive_copies() -> None:
    assert copy.deepcopy(Colour.RED) is Colour.RED
    assert pickle.loads(pickle.dumps(Level.HIGH)) is Level.HIGH
