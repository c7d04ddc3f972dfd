"""Charts in the terminal are right to the eighth of a line; pictures are pictures, and the same twice."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ElementTree
import zlib
from pathlib import Path

import pytest
from command_line import Minga, one_error
from hypothesis import given
from hypothesis import strategies as st

from minga.cli.index_plot import BLOCKS, HEIGHT, WIDTH_MAX, chart, save_plot

JANUARY = 2025 * 12
months = st.dictionaries(st.integers(JANUARY, JANUARY + 120), st.integers(1, 10**9), min_size=1, max_size=60)
SERIES = {("H100", "neocloud_index"): {JANUARY + n: 2_000_000 + 100_000 * n for n in range(12) if n != 5}}


def columns(lines: list[str]) -> list[int]:
    """Heights of the columns of a chart, in eighths of a line."""
    rows = [line.partition("┤")[2] for line in lines[:HEIGHT]]
    width = max(map(len, rows))
    padded = [row.ljust(width) for row in rows]
    return [sum(BLOCKS.index(row[column]) for row in padded) for column in range(width)]


def test_a_chart_of_three_months():
    lines = chart({JANUARY: 8_000_000, JANUARY + 1: 4_000_000, JANUARY + 3: 1_000_000})
    assert columns(lines) == [64, 32, 0, 8]
    assert lines[0].startswith("   $8.00 ┤█")
    assert lines[HEIGHT // 2].startswith("   $4.00 ┤██")
    assert lines[HEIGHT].startswith("   $0.00 ┼────")
    assert lines[-1].strip() == "2025-01"


def test_a_chart_names_both_ends_when_they_fit():
    lines = chart({JANUARY + n: 10**6 for n in range(24)})
    assert lines[-1].split() == ["2025-01", "2026-12"]
    assert len(lines[-1]) == len(lines[0])


def test_only_the_newest_months_are_drawn_when_there_are_too_many():
    lines = chart({JANUARY + n: 10**6 for n in range(100)})
    assert len(columns(lines)) == WIDTH_MAX


@given(months)
def test_columns_are_in_proportion_and_the_chart_fits(series):
    lines = chart(series)
    assert max(map(len, lines)) <= 80
    heights = columns(lines)
    first = max(min(series), max(series) - WIDTH_MAX + 1)
    top = max(price for month, price in series.items() if month >= first)
    for offset, height in enumerate(heights):
        wanted = series.get(first + offset, 0) * HEIGHT * 8 / top
        assert wanted <= height < wanted + 1


# ------------------------------------------------------------------------------------------------------------- pictures


def png_size_and_pixels(data: bytes) -> tuple[int, int, set[bytes]]:
    """Width, height and the distinct bytes of the filtered pixels; fails unless every chunk's checksum holds."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, size = 8, b"", (0, 0)
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    pixels = zlib.decompress(packed)
    return *size, {pixels[n : n + 1] for n in range(len(pixels))}


def test_a_png_is_a_picture_and_not_empty(tmp_path: Path):
    save_plot(SERIES, tmp_path / "prices.png")
    width, height, values = png_size_and_pixels((tmp_path / "prices.png").read_bytes())
    assert (width, height) == (1080, 600)
    assert len(values) > 20, "something is drawn"


def test_an_svg_is_a_drawing_that_names_what_it_shows(tmp_path: Path):
    save_plot(SERIES, tmp_path / "prices.SVG")
    root = ElementTree.fromstring((tmp_path / "prices.SVG").read_text())
    assert root.tag.endswith("svg")
    words = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    assert "H100, small clouds, normalised index" in words
    assert "dollars per GPU-hour" in words
    assert sum(element.tag.endswith("path") for element in root.iter()) > 10


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_same_series_gives_the_same_file(tmp_path: Path, suffix: str):
    for name in ("one", "two"):
        save_plot(SERIES, tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_other_series_give_another_file(tmp_path: Path):
    save_plot(SERIES, tmp_path / "one.svg")
    save_plot({("H200", "neocloud_index"): {JANUARY: 10**6, JANUARY + 1: 2 * 10**6}}, tmp_path / "two.svg")
    assert (tmp_path / "one.svg").read_bytes() != (tmp_path / "two.svg").read_bytes()


def test_the_command_draws_into_a_file(minga: Minga, tmp_path: Path):
    ended = minga("index", "H100", "--plot", str(tmp_path / "prices.svg"))
    assert (ended.code, ended.out) == (0, "")
    assert "wrote" in ended.err
    assert (tmp_path / "prices.svg").stat().st_size > 5000


def test_without_matplotlib_one_error_says_what_to_install(minga: Minga, tmp_path: Path):
    """A site that hides it: as on a machine where the extra was not installed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "found = u.find_spec\n"
        "u.find_spec = lambda name, package=None: None if name == 'matplotlib' else found(name, package)\n"
    )
    ended = minga("index", "--plot", str(tmp_path / "prices.png"), env={"PYTHONPATH": str(tmp_path)})
    one_error(ended, "missing-prerequisite", 6)
    assert "minga[plot]" in ended.err
    assert not (tmp_path / "prices.png").exists()
