"""The tree that is drawn in the docstring of pyhv.errors is the tree of its classes."""

import inspect

from pyhv import errors


def drawn():
    """(class, parent) of each line of the drawing; a level is four columns."""
    path = []
    for line in errors.__doc__.splitlines():
        name = line.strip("│├└─ ").split(" ")[0]
        if name.isidentifier() and name[0].isupper() and hasattr(errors, name):
            level = (len(line) - len(line.lstrip("│├└─ ")) - 4) // 4
            path[level:] = [name]
            yield name, path[level - 1] if level else None


def real():
    for name, kind in vars(errors).items():
        if (
            inspect.isclass(kind)
            and issubclass(kind, Exception)
            and kind.__module__ == errors.__name__
            and name[0] != "_"
        ):
            parents = [base for base in kind.__mro__[1:] if not base.__name__.startswith("_")]
            yield name, parents[0].__name__ if parents[0] is not Exception else None


def test_the_drawing_is_complete_and_right():
    assert dict(drawn()) == dict(real())


def test_each_error_says_what_it_means():
    assert all(getattr(errors, name).__doc__ for name, _ in real())
