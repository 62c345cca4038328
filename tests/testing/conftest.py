"""The guests that the plugin's tests run."""

from pathlib import Path

import pytest

from pyhv.errors import HostError
from pyhv.hv.select import select

BUILD = Path(__file__).resolve().parent.parent.parent / "guests" / "build"


@pytest.fixture(scope="session")
def guests() -> Path:
    """The built guests, and a backend to run them on."""
    if not (BUILD / "hello.elf").exists():
        pytest.skip("guests/build is empty: make guests")
    try:
        select("auto")
    except HostError as error:
        pytest.skip(str(error))
    return BUILD
