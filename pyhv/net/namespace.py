"""Network namespaces: doing something inside of one, and making and removing named ones (as `ip netns` does)."""

from __future__ import annotations

import errno
import os
from threading import Thread

from pyhv._types import TYPE_CHECKING
from pyhv.errors import ConfigError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypeVar

    T = TypeVar("T")

DIRECTORY: Final = "/run/netns"
_CLONE_NEWNET = 0x40000000


def namespace_path(name: str) -> str:
    """The file of a namespace, given by its name or by a path such as /proc/PID/ns/net."""
    return name if "/" in name else f"{DIRECTORY}/{name}"


def inside(namespace: str, function: Callable[[], T]) -> T:
    """What `function()` gives, called in a network namespace ("" is this one). Its exceptions get through.

    It runs in a thread of its own, which ends afterwards: no thread of the caller's ever changes its namespace. Raises
    ConfigError for a namespace that is not there, HostError where entering it is not permitted.
    """
    if not namespace:
        return function()
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            _enter(namespace)
            found.append(function())
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run, name="pyhv-netns", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    result: T = found[0]
    return result


def _enter(namespace: str) -> None:
    try:
        fd = os.open(namespace_path(namespace), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        hint = "" if "/" in namespace else f"; make it with: ip netns add {namespace}"
        raise ConfigError(f"net: namespace: {namespace!r} is not there ({error.strerror}){hint}") from None
    try:
        _setns(fd)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ConfigError(f"net: namespace: {namespace!r} is not a network namespace") from None
        raise HostError(f"net: namespace {namespace!r} cannot be entered: {error.strerror}") from None
    finally:
        os.close(fd)


def _setns(fd: int) -> None:
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(fd, _CLONE_NEWNET)
        return
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def make_namespace(name: str) -> None:
    """A new named namespace with its loopback up. Raises HostError."""
    from pyroute2 import IPRoute, netns  # type: ignore[import-untyped]

    try:
        netns.create(name)
        inside(name, lambda: _up(IPRoute, "lo"))
    except OSError as error:
        raise HostError(f"net: namespace {name!r} cannot be made: {error.strerror or error}") from None


def _up(route: Any, name: str) -> None:
    with route() as ip:
        ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up")


def remove_namespace(name: str) -> None:
    """Remove a namespace's name; the namespace goes once nobody uses it. Raises HostError."""
    from pyroute2 import netns

    try:
        netns.remove(name)
    except OSError as error:
        raise HostError(f"net: namespace {name!r} cannot be removed: {error.strerror or error}") from None
