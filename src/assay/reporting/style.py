"""How figures look: one palette, markers and dashes beside colours, and the same bytes every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

INK, MUTED, GRID = "#1b1f24", "#68707a", "#dde1e6"
PAPER = "#fffffe"
"""The background where something must be hidden; its own colour, so that it can follow the theme."""
COLOURS = ("#0072b2", "#c44f00", "#009e73", "#bf5a9f", "#be890a", "#4999d2", "#545288")
"""After Okabe and Ito 2008, moved until the simulations of colour blindness in the tests tell all seven apart, on white paper."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 2)),
    (0, (1.5, 1.5)),
    (0, (6, 2, 1.5, 2)),
)
WIDTH, HEIGHT = 3.3, 2.4
"""Inches: a column of a paper; a phone shows that at about its natural size, a desktop half as large again."""
TEXT, SMALL = 8.0, 7.0
"""Points: text as in a paper's captions; numbers at axes and legends."""

THEME_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--card"} | {
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
        "axes.labelsize": TEXT,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.unicode_minus": True,
        "figure.constrained_layout.use": True,
        "figure.figsize": (WIDTH, HEIGHT),
        "font.family": "DejaVu Sans",
        "font.size": TEXT,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "legend.fontsize": TEXT,
        "legend.frameon": False,
        "legend.handlelength": 2.2,
        "legend.labelcolor": INK,
        "lines.linewidth": 1.5,
        "lines.markeredgewidth": 0.0,
        "lines.markersize": 4.5,
        "pdf.fonttype": 42,
        "path.simplify": True,
        "savefig.dpi": 200,
        "svg.fonttype": "path",
        "svg.hashsalt": salt,
        "text.color": INK,
        "xtick.color": GRID,
        "xtick.labelcolor": MUTED,
        "xtick.labelsize": SMALL,
        "ytick.color": GRID,
        "ytick.labelcolor": MUTED,
        "ytick.labelsize": SMALL,
    }
    with matplotlib.rc_context(settings):
        yield
