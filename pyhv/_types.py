"""What type checkers need and a running program does not: importing `typing` costs a tenth of a tiny guest's whole run.

Modules take TYPE_CHECKING and Protocol from here; with postponed annotations nothing else of `typing` is needed at run time.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object

__all__ = ["TYPE_CHECKING", "Protocol"]
