import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.core.units import format_size, parse_size
from shardfs.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 2**20),
        ("7B", 7),
        ("4MiB", 4 * 2**20),
        ("4mib", 4 * 2**20),
        ("4M", 4 * 2**20),
        ("4m", 4 * 2**20),
        ("50GB", 50 * 10**9),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("1.5G", 3 * 2**29),
        (" 2 TiB ", 2 * 2**40),
        ("1P", 2**50),
        (4096, 4096),
        (0, 0),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "x",
        "-1",
        "+1",
        "1.",
        ".5",
        "1e9",
        "4 M i B",
        "4XiB",
        "4MiBB",
        "0x10",
        "inf",
        "nan",
        "1,5G",
        "\u0661",
        "4MiB\n4",
        "1" * 20,
        -1,
        True,
        False,
    ],
)
def test_no_sizes(text):
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (10 * 2**20, "10.0 MiB"),
        (100 * 2**20, "100 MiB"),
        (1000 * 2**20, "0.98 GiB"),
        (2**40, "1.00 TiB"),
        (2**50, "1.00 PiB"),
        (-1536, "-1.50 KiB"),
    ],
)
def test_shown_sizes(size, text):
    assert format_size(size) == text


@given(st.integers(0, 2**60))
def test_what_is_shown_is_near(size):
    number, unit = format_size(size).split()
    factor = parse_size("1" + unit)
    assert abs(float(number) * factor - size) <= 0.006 * size + 0.5
    assert len(number) <= 5
