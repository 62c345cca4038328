"""Remembered results, without the import of `functools` and what that stands on."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from functools import cached_property as lazy
    from functools import lru_cache as memo
else:

    def memo(maxsize=64):
        """Remember a function's results by its arguments; all are forgotten when there are `maxsize`."""

        def decorate(function):
            results = {}

            def remembered(*args, **kwargs):
                key = (args, tuple(sorted(kwargs.items()))) if kwargs else args
                try:
                    return results[key]
                except KeyError:
                    pass
                value = function(*args, **kwargs)
                if len(results) >= maxsize:
                    results.clear()
                results[key] = value
                return value

            remembered.__doc__ = function.__doc__
            remembered.__name__ = function.__name__
            remembered.__wrapped__ = function
            remembered.cache_clear = results.clear
            return remembered

        return decorate

    class lazy:
        """An attribute that is computed when it is first read."""

        __slots__ = ("_function", "_name")

        def __init__(self, function):
            self._function = function
            self._name = function.__name__

        def __get__(self, instance, owner=None):
            if instance is None:
                return self
            value = instance.__dict__[self._name] = self._function(instance)
            return value


__all__ = ["lazy", "memo"]
