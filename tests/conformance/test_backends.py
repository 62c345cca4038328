"""Which backends the kit ran on: one line for each that it did not."""

import pytest

from .conftest import ABSENT, BACKENDS, DEMANDED


@pytest.mark.parametrize("name", BACKENDS)
def test_the_backend_is_here(name: str) -> None:
    if name in DEMANDED:
        assert name not in ABSENT, ABSENT[name]
    elif DEMANDED:
        pytest.skip(f"PYHV_TEST_BACKENDS leaves {name} out")
    elif name in ABSENT:
        pytest.skip(f"no {name} here: {ABSENT[name]}")
