"""What every test may use: hypothesis without deadlines, the guests as built, the backends that are here."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from pyhv.errors import HostError
from pyhv.hv.select import Selection, select

PROJECT = Path(__file__).resolve().parent.parent
BUILD = PROJECT / "guests" / "build"

settings.register_profile(
    "pyhv", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("pyhv")


@cache
def _missing_guests() -> str:
    """Make the guests; what is missing to do so."""
    if "PYHV_RIG" not in os.environ:
        absent = [tool for tool in ("make", "gcc", "ld") if shutil.which(tool) is None]
        if absent:
            return f"guests need {', '.join(absent)}"
        subprocess.run(["make", "-s", "-C", PROJECT / "guests"], check=True, timeout=120)
    return ""


@pytest.fixture
def guest() -> Callable[[str], Path]:
    """The image of a guest in guests/, by its name."""

    def find(name: str) -> Path:
        missing = _missing_guests()
        if missing:
            pytest.skip(missing)
        path = BUILD / f"{name}.elf"
        return path if path.exists() else BUILD / f"{name}.bin"

    return find


def _have(name: str) -> Selection:
    try:
        return select(name)
    except HostError as error:
        pytest.skip(f"no {name} here: {error}")


@pytest.fixture(params=["kvm", "sim"])
def backend(request: pytest.FixtureRequest) -> Selection:
    """Each backend; one that is not here is a skip that says why not."""
    return _have(request.param)


@pytest.fixture
def kvm() -> Selection:
    """KVM, for what has nothing to do with the backend or needs its threads."""
    return _have("kvm")


@pytest.fixture
def sim() -> Selection:
    """The simulator, for what only it promises."""
    return _have("sim")


_namespaces = count()


@pytest.fixture
def namespace() -> Iterator[str]:
    """The name of a network namespace of this test's own, where taps can be made."""
    from pyhv.net.namespace import make_namespace, remove_namespace

    if os.geteuid():
        pytest.skip("taps and namespaces need root")
    if not os.path.exists("/dev/net/tun"):
        pytest.skip("there is no /dev/net/tun")
    name = f"pyhv-test-{os.getpid()}-{next(_namespaces)}"
    try:
        make_namespace(name)
    except HostError as error:
        pytest.skip(str(error))
    yield name
    remove_namespace(name)
