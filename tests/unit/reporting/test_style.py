"""Colours: told apart by colour-blind eyes, and seen on paper and on the page in both themes."""

import re
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import assay.reporting.style as style

Floats = NDArray[np.float64]

BLINDNESS = {
    "none": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Of linear RGB, severity 1: Machado, Oliveira and Fernandes 2009, table 1."""
LEAST = 10.0
"""Distance in CIELAB (CIE 1976) of two colours side by side; 2.3 is just noticeable."""


def linear(colour: str) -> Floats:
    values = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: Floats) -> Floats:
    """Of linear sRGB under D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratios = to_xyz @ rgb / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def closest(colours: list[str], kind: str) -> float:
    seen = [lab(np.clip(np.array(BLINDNESS[kind]) @ linear(colour), 0, 1)) for colour in colours]
    return min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2))


def contrast(one: str, other: str) -> float:
    light, dark = sorted(
        (float(np.array([0.2126, 0.7152, 0.0722]) @ linear(c)) for c in (one, other)), reverse=True
    )
    return (light + 0.05) / (dark + 0.05)


def themes() -> dict[str, dict[str, str]]:
    """Variables of the page by theme."""
    text = (Path(style.__file__).parent / "templates" / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", part))
        for part in re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)[:2]
    )
    return {"light": light, "dark": light | dark}


@pytest.mark.parametrize("kind", BLINDNESS)
@pytest.mark.parametrize("palette", ["paper", "light", "dark"])
def test_colours_of_arms_are_told_apart(palette: str, kind: str) -> None:
    colours = list(style.COLOURS)
    if palette != "paper":
        colours = [themes()[palette][f"arm-{index}"] for index in range(len(style.COLOURS))]
    assert closest(colours, kind) >= LEAST


def test_red_and_green_would_be_noticed() -> None:
    assert closest(["#c0392b", "#5d7a1f"], "none") > 40
    assert closest(["#c0392b", "#5d7a1f"], "deuteranopia") < LEAST


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_of_arms_stand_out_from_the_page(theme: str) -> None:
    """3 to 1, as WCAG 2.2 asks of graphics (1.4.11)."""
    found = themes()[theme]
    for index in range(len(style.COLOURS)):
        assert contrast(found[f"arm-{index}"], found["card"]) >= 3, index


def test_neighbours_differ_in_marker_and_dash_too() -> None:
    styles = [style.arm_style(index) for index in range(8)]
    assert len({one.marker for one in styles}) == 8
    assert all(one.dash != other.dash for one, other in pairwise(styles))
