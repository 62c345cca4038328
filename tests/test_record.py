import copy

import pytest

from pyhv.record import COMPILE_AFTER, as_dict, default_of, field, field_names, record, replace


@record
class Point:
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)
    note: str = field(default="", repr=False, compare=False)

    def sum(self) -> int:
        return self.x + self.y


@record(frozen=True)
class Frozen:
    point: Point
    name: str = "n"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("empty")


@pytest.mark.parametrize("times", [1, 2 * COMPILE_AFTER])
def test_fields_defaults_and_methods_before_and_after_compilation(times: int) -> None:
    for _ in range(times):
        point = Point(1, tags=["a"])
    assert (point.x, point.y, point.tags, point.note, point.sum()) == (1, 2, ["a"], "", 3)
    assert Point(5).tags is not Point(5).tags
    for wrong in ((), (1, 2, [], "", 9)):
        with pytest.raises(TypeError):
            Point(*wrong)
    for names in ({"z": 1}, {"x": 1, "q": 2}):
        with pytest.raises(TypeError):
            Point(1, **names)


def test_comparison_and_repr_leave_out_what_they_were_told_to() -> None:
    assert Point(1, note="a") == Point(1, note="b")
    assert Point(1) != Point(2)
    assert Point(1) != (1, 2, [], "")
    assert repr(Point(1, note="a")) == "Point(x=1, y=2, tags=[])"


def test_instances_have_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Point(1).z = 3  # type: ignore[attr-defined]


def test_frozen_records_refuse_changes_and_hash() -> None:
    frozen = Frozen(Point(1))
    with pytest.raises(AttributeError, match="frozen"):
        frozen.name = "x"  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del frozen.name
    with pytest.raises(TypeError):
        hash(frozen)  # a Point is not hashable
    assert copy.copy(frozen) == frozen
    assert copy.deepcopy(frozen) == frozen


def test_post_init_runs_always() -> None:
    for _ in range(2 * COMPILE_AFTER):
        with pytest.raises(ValueError, match="empty"):
            Frozen(Point(1), "")


def test_copying_and_listing() -> None:
    frozen = Frozen(Point(1, tags=["t"]))
    assert replace(frozen, name="m") == Frozen(Point(1, tags=["t"]), "m")
    with pytest.raises(TypeError, match="no field"):
        replace(frozen, nme="m")
    assert as_dict(frozen) == {"point": {"x": 1, "y": 2, "tags": ["t"], "note": ""}, "name": "n"}
    assert field_names(Point) == ("x", "y", "tags", "note")
    assert default_of(Point, "y") == 2
