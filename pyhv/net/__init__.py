"""What a network device stands on: taps, user-mode networking, sockets, peers written in Python, and captures.

For users: `Peer` and `EchoHost` (`pyhv.net.peer`, `pyhv.net.echo`) see and send a machine's frames from Python, and `Switch`
(`pyhv.net.switch`) connects machines of one process.
"""

from __future__ import annotations

from pyhv._types import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhv.net.echo import EchoHost
    from pyhv.net.peer import Peer
    from pyhv.net.switch import Switch

__all__ = ["EchoHost", "Peer", "Switch"]

_HOMES = {"EchoHost": "pyhv.net.echo", "Peer": "pyhv.net.peer", "Switch": "pyhv.net.switch"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
