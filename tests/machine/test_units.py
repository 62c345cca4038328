"""Sizes as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyhv.errors import ConfigError
from pyhv.units import check_timeout, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("1K", 1 << 10),
        ("256M", 256 << 20),
        ("256m", 256 << 20),
        ("256MB", 256 << 20),
        ("256MiB", 256 << 20),
        (" 3 GiB ", 3 << 30),
        ("2T", 2 << 40),
        ("100B", 100),
        (4096, 4096),
        (-1, -1),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "M",
        "banana",
        "-1M",
        "+1",
        "1.5G",
        "1e3",
        "0x100",
        "1 2",
        "1MM",
        "1P",
        "1Mi B",
        "٣M",
        "²",
        "9" * 40,
    ],
)
def test_no_sizes(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^memory: .* is not a size") as caught:
        parse_size(text, "memory")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 1.5, True, b"1M", []])
def test_no_texts(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^size: "):
        parse_size(value)  # type: ignore[arg-type]


@given(st.integers(0, 1 << 59))
def test_what_is_written_is_read(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.text(max_size=12))
def test_any_text(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ConfigError as error:
        assert repr(text) in str(error)


@pytest.mark.parametrize("value", [None, -1, 0, 0.5, 60, 1e9])
def test_timeouts(value: float | None) -> None:
    check_timeout(value)


@pytest.mark.parametrize("value", ["5", True, float("nan"), float("inf"), 10**400, []])
def test_no_timeouts(value: object) -> None:
    with pytest.raises(ConfigError, match=r"timeout: .* is not a number of seconds"):
        check_timeout(value)
