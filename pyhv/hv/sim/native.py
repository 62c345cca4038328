"""The compiled silicon, behind one door: `ffi` and `lib` of `pyhv.hv.sim._silicon` (silicon/api.h)."""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING
from pyhv.errors import SimUnavailable

if TYPE_CHECKING:
    from typing import Any

try:
    from pyhv.hv.sim._silicon import ffi as _ffi  # type: ignore[import-not-found]
    from pyhv.hv.sim._silicon import lib as _lib
except ImportError as error:
    raise SimUnavailable(f"pyhv.hv.sim._silicon is not built ({error}); mend it with: pip install -e .") from error

ffi: Any = _ffi
lib: Any = _lib
