"""Typed records that cost nothing to import.

`record` is `dataclasses.dataclass(slots=True)` for this library's needs. The standard one builds four methods of every class
with exec() when its module is imported, and imports `inspect`: together more time than a tiny guest takes from power-on to
its verdict. Here `__init__` is built when a class is first instantiated; comparison, repr and copying are shared methods.
Type checkers see a dataclass (PEP 681).
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, dataclass_transform, overload

    T = TypeVar("T")


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "<required>"


_MISSING = _Missing()


class _Field:
    """A default that is made anew for each instance, or a field that comparison or repr leave out."""

    __slots__ = ("compare", "default", "factory", "repr")

    def __init__(self, default: object, factory: object, compare: bool, repr: bool) -> None:
        self.default = default
        self.factory = factory
        self.compare = compare
        self.repr = repr


if TYPE_CHECKING:

    def field(
        *,
        default: Any = ...,
        default_factory: Callable[[], Any] = ...,
        compare: bool = True,
        repr: bool = True,
    ) -> Any: ...

    @overload
    def record(cls: type[T], /) -> type[T]: ...

    @overload
    def record(*, frozen: bool = False, init: bool = True) -> Callable[[type[T]], type[T]]: ...

    @dataclass_transform(field_specifiers=(field,))
    def record(cls: Any = None, /, *, frozen: bool = False, init: bool = True) -> Any: ...

else:

    def field(*, default=_MISSING, default_factory=None, compare=True, repr=True):
        """What a field is beyond its type, as `dataclasses.field`."""
        return _Field(default, default_factory, compare, repr)

    def record(cls=None, /, *, frozen=False, init=True):
        """Make a class of annotated fields a record: slots, `__init__`, `__eq__`, `__repr__`; `frozen` adds `__hash__`.

        `__post_init__` runs after `__init__`. With `init=False` the class brings its own.
        """
        if cls is None:
            return lambda cls: _build(cls, frozen, init)
        return _build(cls, frozen, init)


_CLASS_VARS = ("ClassVar", "typing.ClassVar")


def _build(cls: "type[Any]", frozen: bool, init: bool) -> "type[Any]":
    found = cls.__dict__
    names = tuple(
        name for name, kind in found.get("__annotations__", {}).items() if not str(kind).startswith(_CLASS_VARS)
    )
    namespace = {key: value for key, value in found.items() if key not in names}
    namespace.pop("__dict__", None)
    namespace.pop("__weakref__", None)
    namespace["__slots__"] = namespace["__match_args__"] = namespace["__record_fields__"] = names
    namespace["__record_defaults__"] = {name: found[name] for name in names if name in found}
    if init:
        namespace["__init__"] = _first_init
    base: Any = _FrozenRecord if frozen else _Record
    made: type[Any] = type.__new__(type(cls), cls.__name__, (base, *cls.__bases__[:-1]), namespace)
    return made


COMPILE_AFTER = 100
"""Instances of a class before its `__init__` is compiled: most classes never have as many."""

_instances: "dict[type[Any], int]" = {}


def _first_init(self: "Any", *args: "Any", **kwargs: "Any") -> None:
    """Initialise by the tables; once there are many instances, put a compiled `__init__` in place."""
    cls = type(self)
    while cls.__dict__.get("__init__") is not _first_init:
        cls = cls.__mro__[1]
    count = _instances[cls] = _instances.get(cls, 0) + 1
    names = cls.__record_fields__
    if count > COMPILE_AFTER or len(args) > len(names):
        cls.__init__ = _make_init(cls)
        cls.__init__(self, *args, **kwargs)
        return
    put = object.__setattr__
    for name, value in zip(names, args):  # noqa: B905 - fewer arguments than fields is what defaults are for
        put(self, name, value)
    for name in names[len(args) :]:
        if name in kwargs:
            value = kwargs.pop(name)
        else:
            value = cls.__record_defaults__.get(name, _MISSING)
            if isinstance(value, _Field):
                factory: Any = value.factory
                value = factory() if factory is not None else value.default
            if value is _MISSING:
                raise TypeError(f"{cls.__name__}() misses {name!r}")
        put(self, name, value)
    if kwargs:
        raise TypeError(f"{cls.__name__}() has no field {next(iter(kwargs))!r}, or it was given twice")
    if hasattr(cls, "__post_init__"):
        self.__post_init__()


def _make_init(cls: "type[Any]") -> "Callable[..., None]":
    frozen = issubclass(cls, _FrozenRecord)
    scope: dict[str, Any] = {"_missing": _MISSING}
    parameters, body = ["self"], []
    for name in cls.__record_fields__:
        default = cls.__record_defaults__.get(name, _MISSING)
        value = name
        if isinstance(default, _Field):
            if default.factory is not None:
                scope[f"_factory_{name}"] = default.factory
                value = f"_factory_{name}() if {name} is _missing else {name}"
                default = _MISSING
                parameters.append(f"{name}=_missing")
            else:
                default = default.default
        if value == name:
            if default is _MISSING:
                parameters.append(name)
            else:
                scope[f"_default_{name}"] = default
                parameters.append(f"{name}=_default_{name}")
        if frozen:
            scope[f"_set_{name}"] = cls.__dict__[name].__set__
            body.append(f"_set_{name}(self, {value})")
        else:
            body.append(f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    source = f"def __init__({', '.join(parameters)}):\n " + "\n ".join(body or ["pass"])
    exec(source, scope)
    function: Callable[..., None] = scope["__init__"]
    function.__qualname__ = f"{cls.__qualname__}.__init__"
    return function


def _shown(cls: "type[Any]", what: str) -> "list[str]":
    defaults = cls.__record_defaults__
    return [
        name
        for name in cls.__record_fields__
        if not isinstance(defaults.get(name), _Field) or getattr(defaults[name], what)
    ]


def _values(self: "Any") -> "tuple[Any, ...]":
    return tuple(getattr(self, name) for name in _shown(type(self), "compare"))


class _Record:
    """What every record has: its class need not be made with all of that."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in _shown(type(self), "repr"))
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        return _values(self) == _values(other) if type(other) is type(self) else NotImplemented


class _FrozenRecord(_Record):
    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(_values(self))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be changed: the record is frozen")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__}.{name} cannot be deleted: the record is frozen")

    def __getstate__(self) -> "tuple[Any, ...]":
        return tuple(getattr(self, name) for name in type(self).__record_fields__)  # type: ignore[attr-defined]

    def __setstate__(self, state: "tuple[Any, ...]") -> None:
        names = type(self).__record_fields__  # type: ignore[attr-defined]
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)


def field_names(record: object) -> "tuple[str, ...]":
    """The names of a record's fields (an instance or its class), in order."""
    names: tuple[str, ...] = record.__record_fields__  # type: ignore[attr-defined]
    return names


def default_of(cls: type, name: str) -> object:
    """A field's default; a marker where it is required or made anew for each instance."""
    value = cls.__record_defaults__.get(name, _MISSING)  # type: ignore[attr-defined]
    return value.default if isinstance(value, _Field) else value


def replace(record: "T", /, **changes: "Any") -> "T":
    """A copy of a record with some fields changed; checks run again."""
    values = {name: getattr(record, name) for name in field_names(record)}
    for name in changes:
        if name not in values:
            raise TypeError(f"{type(record).__name__} has no field {name!r}")
    return type(record)(**(values | changes))


def as_dict(record: object) -> "dict[str, Any]":
    """A record's fields as a dict, records within it included."""
    return {name: _plain(getattr(record, name)) for name in field_names(record)}


def _plain(value: "Any") -> "Any":
    if hasattr(type(value), "__record_fields__"):
        return as_dict(value)
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    return value
