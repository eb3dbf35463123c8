"""`reference.json`: how inputs and predictions looked offline, for drift to be seen against."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from assay.records import Typed

MOST_IMAGES = 10_000
MOST_PIXELS = 32
BINS = 10
PERCENT = [share / 100 for share in range(101)]
SUMMARIES = ("mean", "std", "low", "high")
"""Of all values of one sample."""

Floats = NDArray[np.float64]


class Feature(Typed):
    """The distribution of one number over the reference's samples.

    Bins are those between deciles, equal ones taken together: bin i has the values in [edges[i-1], edges[i]), the first
    everything below, the last everything from the last edge on. So every new value is in exactly one.
    """

    mean: float
    std: float
    quantiles: list[float] = Field(min_length=101, max_length=101, description="At 0%, 1%, … 100%.")
    edges: list[float]
    counts: list[int] = Field(description="Samples in each bin: one more than edges.")


class Predictions(Typed):
    """What the model says about the validation split."""

    count: int
    class_shares: list[float] = Field(
        description="Share of samples by predicted class, in order of the classes."
    )
    confidence: Feature = Field(description="Probability of the predicted class.")
    entropy: Feature = Field(description="Of the predicted probabilities, in nats.")


class Reference(Typed):
    """`reference.json`."""

    schema_version: Literal[1] = 1
    count: int = Field(description="Training samples that stand behind `features`.")
    pixels: list[tuple[int, int, int]] = Field(
        description="Row, column, channel of the pixels among the features."
    )
    features: dict[str, Feature] = Field(
        description="`mean`, `std`, `low`, `high` of a sample's values, and `pixel_ROW_COLUMN_CHANNEL`: 0 to 255."
    )
    predictions: Predictions


def features_of(
    samples: NDArray[np.floating] | NDArray[np.uint8], pixels: Sequence[tuple[int, int, int]]
) -> Floats:
    """[N, 4 + len(pixels)]: the features of samples [N, H, W, C], in the order of `names`."""
    flat = samples.reshape(len(samples), -1).astype(np.float32)
    summary = [flat.mean(1, dtype=np.float64), flat.std(1, dtype=np.float64), flat.min(1), flat.max(1)]
    chosen = [samples[:, row, column, channel] for row, column, channel in pixels]
    return np.stack([*summary, *chosen], axis=1).astype(np.float64)


def names(pixels: Sequence[tuple[int, int, int]]) -> list[str]:
    """Of the features, in the order of `features_of`."""
    return [*SUMMARIES, *(f"pixel_{row}_{column}_{channel}" for row, column, channel in pixels)]


def describe(values: Floats) -> Feature:
    """Of one number over all samples, [N]."""
    quantiles = np.quantile(values, PERCENT)
    # Values that are there, but for the least one: so no bin is empty.
    deciles = np.quantile(values, np.arange(1, BINS) / BINS, method="higher")
    edges = np.unique(deciles[deciles > values.min()])
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Feature(
        mean=float(values.mean()),
        std=float(values.std()),
        quantiles=[float(value) for value in quantiles],
        edges=[float(edge) for edge in edges],
        counts=[int(count) for count in counts],
    )


def telling_pixels(images: NDArray[np.uint8]) -> list[tuple[int, int, int]]:
    """Up to 32 pixels that differ between images [N, H, W, C], spread evenly over those that do, in order of place."""
    shape = images.shape[1:]
    first = images.reshape(len(images), -1)
    varying = np.flatnonzero((first != first[:1]).any(0))
    places = (
        varying[np.linspace(0, len(varying) - 1, min(MOST_PIXELS, len(varying))).astype(int)]
        if len(varying)
        else varying
    )
    rows, columns, channels = np.unravel_index(places, shape)
    return [(int(r), int(c), int(k)) for r, c, k in zip(rows, columns, channels, strict=True)]


def spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many positions of `count`, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def reference(images: NDArray[np.uint8], probabilities: Floats) -> Reference:
    """images: of the training split [N, H, W, C]; probabilities: of the validation split [M, classes]."""
    chosen = images[spread(len(images), MOST_IMAGES)]
    pixels = telling_pixels(chosen)
    columns = features_of(chosen, pixels)
    return Reference(
        count=len(chosen),
        pixels=pixels,
        features={name: describe(columns[:, place]) for place, name in enumerate(names(pixels))},
        predictions=predictions(probabilities),
    )


def predictions(probabilities: Floats) -> Predictions:
    """Of probabilities [M, classes]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(probabilities > 0, probabilities * np.log(probabilities), 0.0).sum(1)
    shares = np.bincount(probabilities.argmax(1), minlength=probabilities.shape[1]) / len(probabilities)
    return Predictions(
        count=len(probabilities),
        class_shares=[float(share) for share in shares],
        confidence=describe(probabilities.max(1)),
        entropy=describe(entropy),
    )
