"""The parts in C of standard modules, without the modules around them, whose import takes longer than a tiny guest runs."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Mapping
    from functools import partial
    from threading import get_ident
else:
    from _collections import deque
    from _collections_abc import Mapping
    from _functools import partial
    from _thread import get_ident

__all__ = ["Mapping", "deque", "get_ident", "partial"]
