"""How figures look: one palette, markers and dashes beside colours, and the same bytes every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INK, MUTED, GRID = "#1b1f24", "#68707a", "#dde1e6"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa4499", "#b8860b", "#3f9bd1", "#5b5b8f")
"""Safe for colour-blind eyes (after Okabe and Ito 2008, without the yellow that vanishes on paper)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
)
WIDTH, HEIGHT = 4.2, 2.9
"""Inches: at phone width the page shows a figure at about its natural size, on a desktop a little larger."""

THEME_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {
    colour: f"--arm-{index}" for index, colour in enumerate(COLOURS)
}
"""CSS variables that stand for these colours on the page, so that figures follow a dark theme."""


@dataclass(frozen=True)
class ArmStyle:
    """How an arm looks in every figure. Colour, marker and dash repeat at different periods."""

    colour: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]


def arm_style(index: int) -> ArmStyle:
    return ArmStyle(COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])


@contextmanager
def drawing(salt: str) -> Iterator[None]:
    """Settings under which figures are made and saved; `salt` makes the identifiers of an SVG repeatable."""
    import matplotlib

    settings: Any = dict(matplotlib.rcParamsDefault) | {
        "backend": "agg",
        "axes.axisbelow": True,
        "axes.edgecolor": GRID,
        "axes.grid": True,
        "axes.labelcolor": MUTED,
        "axes.labelsize": 9,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.unicode_minus": True,
        "figure.constrained_layout.use": True,
        "figure.figsize": (WIDTH, HEIGHT),
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "legend.fontsize": 9,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "legend.labelcolor": INK,
        "lines.linewidth": 1.8,
        "lines.markeredgewidth": 0.0,
        "lines.markersize": 5.5,
        "pdf.fonttype": 42,
        "path.simplify": True,
        "savefig.dpi": 200,
        "svg.fonttype": "path",
        "svg.hashsalt": salt,
        "text.color": INK,
        "xtick.color": GRID,
        "xtick.labelcolor": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.color": GRID,
        "ytick.labelcolor": MUTED,
        "ytick.labelsize": 8.5,
    }
    with matplotlib.rc_context(settings):
        yield
