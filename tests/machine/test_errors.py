"""The tree of errors is as its docstring draws it, and every error is public."""

import inspect
import pickle

import pytest

import pyhv
from pyhv import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception) and not name.startswith("_")
}


def drawn() -> dict[str, str]:
    """Each class's parent by the docstring's drawing."""
    parents: dict[str, str] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("├──", "   ").replace("└──", "   ").replace("│", " ")
        name = words.split()[0] if words.split() else ""
        if name not in CLASSES:
            continue
        depth = (len(words) - len(words.lstrip()) - 4) // 4
        parents[name] = branch[depth - 1] if depth else "Exception"
        branch[depth:] = [name]
    return parents


def test_the_drawing_is_the_tree() -> None:
    actual = {}
    for name, kind in CLASSES.items():
        parent = kind.__bases__[0]
        while parent.__name__.startswith("_"):
            parent = parent.__bases__[0]
        actual[name] = parent.__name__
    assert drawn() == actual


def test_all_are_public_names() -> None:
    assert set(CLASSES) <= set(pyhv.__all__)
    for name in pyhv.__all__:
        assert getattr(pyhv, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        pyhv.Nonsense  # noqa: B018


def test_type_checkers_see_what_programs_see() -> None:
    """The names for type checkers, those for programs, and __all__ are the same."""
    assert {*pyhv._WHERE, "__version__"} == set(pyhv.__all__)
    source = inspect.getsource(pyhv)
    for name in pyhv._WHERE:
        assert source.count(name) >= 3, name


def test_what_they_carry() -> None:
    error = errors.KvmError("KVM_RUN", 14, "at rip")
    assert (error.ioctl, error.errno) == ("KVM_RUN", 14)
    assert str(error) == "KVM_RUN: Bad address (errno 14): at rip"
    memory = errors.GuestMemoryError(0x1000, 4)
    assert (memory.address, memory.length, str(memory)) == (0x1000, 4, "guest physical [0x1000, 0x1004) is not memory")
    assert errors.GuestPanic("x").result is None


@pytest.mark.parametrize(
    "error",
    [errors.KvmError("KVM_RUN", 14), errors.GuestMemoryError(1, 2), errors.GuestPanic("x"), errors.ConfigError("y")],
    ids=lambda e: type(e).__name__,
)
def test_they_cross_processes(error: Exception) -> None:
    """Test runners with worker processes pickle them."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
