"""Test examples that one arm gets right and another wrong: counted from the predictions, shown from the prepared data."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.data.store import MANIFEST, StoreError, open_store
from assay.records import sha256_file
from assay.reporting.read import Results
from assay.reporting.samples import MAX_PREDICTION_RUNS, predictions
from assay.reporting.table import Column, Raw, Table

SHOWN = 6
"""Examples on the page per arm and direction."""
LISTED = 50
"""Examples in the table per arm and direction."""
ARMS = 3
"""Arms that are set against the baseline."""
SIDE = 96
"""Pixels of an embedded image's longer side, at most."""

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Example:
    """A test example that `right` gets right and `wrong` gets wrong at `times` of `seeds` seeds, never the other way."""

    index: int
    label: str
    said: str
    """What the wrong one took it for, most often; the first of several."""
    times: int
    image: str | None
    """As a data URL; null where the prepared data are gone or are not those of the records."""


@dataclass(frozen=True)
class Disagreement:
    """Examples of one direction, those at most seeds first and then by index."""

    right: str
    wrong: str
    seeds: int
    tested: int
    always: int
    """Examples at every seed."""
    mostly: int
    """Examples at more than half of the seeds, and never the other way."""
    examples: list[Example]


def disagreements(results: Results) -> list[Disagreement]:
    """Both directions of each arm against the baseline; none where there are no predictions that belong together."""
    names = next(([one.name for one in run.classes] for run in results.runs if run.classes), [])
    pictures = _Pictures(results)
    found = []
    for arm in results.arms[1 : ARMS + 1]:
        said, labels = _predictions(results, (results.arms[0], arm))
        if labels is None:
            continue
        for right, wrong in ((arm, results.arms[0]), (results.arms[0], arm)):
            found.append(_direction(right, wrong, said, labels, names, pictures))
    return found


def _direction(
    right: str,
    wrong: str,
    said: dict[str, Integers],
    labels: Integers,
    names: list[str],
    pictures: "_Pictures",
) -> Disagreement:
    hits = {arm: guesses == labels for arm, guesses in said.items()}
    times = (hits[right] & ~hits[wrong]).sum(axis=0)
    never = (hits[wrong] & ~hits[right]).sum(axis=0) == 0
    seeds = len(said[right])
    chosen = np.flatnonzero(never & (2 * times > seeds))
    chosen = chosen[np.lexsort((chosen, -times[chosen]))]
    examples = []
    for place, index in enumerate(chosen[:LISTED].tolist()):
        answers = said[wrong][~hits[wrong][:, index], index]
        told = int(np.bincount(answers).argmax())
        examples.append(
            Example(
                index,
                _name(names, int(labels[index])),
                _name(names, told),
                int(times[index]),
                pictures.url(index) if place < SHOWN else None,
            )
        )
    return Disagreement(right, wrong, seeds, len(labels), int((times == seeds).sum()), len(chosen), examples)


def _name(names: list[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _predictions(results: Results, arms: tuple[str, str]) -> tuple[dict[str, Integers], Integers | None]:
    """Classes by arm, int64 [S, N], at the seeds that both completed, and labels, int64 [N]."""
    done = {(run.arm, run.seed) for run in results.runs if run.outcome == "completed"}
    seeds = [seed for seed in results.experiment.seeds if all((arm, seed) in done for arm in arms)]
    said: dict[str, list[Integers]] = {arm: [] for arm in arms}
    labels: Integers | None = None
    for seed in seeds[:MAX_PREDICTION_RUNS]:
        for arm in arms:
            path = results.run_path(arm, seed, "evaluate", "predictions.parquet")
            if not path.exists():
                return {}, None
            frame = predictions(path, ["index", "label", "prediction"]).sort("index")
            found = frame["label"].to_numpy()
            if labels is not None and not np.array_equal(labels, found):
                return {}, None
            labels = found
            said[arm].append(frame["prediction"].to_numpy())
    if labels is None or not len(labels):
        return {}, None
    return {arm: np.array(guesses) for arm, guesses in said.items()}, labels


class _Pictures:
    """Images of the test split, where the prepared data are those that the records name."""

    def __init__(self, results: Results) -> None:
        self._images: NDArray[np.uint8] | None = None
        folder = results.folder / "data"
        try:
            if results.surroundings.data == {sha256_file(folder / MANIFEST)}:
                self._images = open_store(folder).split("test").images
        except (OSError, StoreError):
            return

    def url(self, index: int) -> str | None:
        if self._images is None or index >= len(self._images):
            return None
        content = base64.b64encode(png(np.asarray(self._images[index]))).decode()
        return f"data:image/png;base64,{content}"


def png(image: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, C] as PNG, at most `SIDE` pixels long; of other than one or three channels the first, in grey."""
    from PIL import Image

    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


def examples(results: Results) -> Table:
    """The same examples as text."""
    columns = [
        Column("Right"),
        Column("Wrong"),
        Column("Test example", "number"),
        Column("Is"),
        Column("Taken for"),
    ]
    lines = list(_lines(disagreements(results)))
    rows = [
        [right, wrong, f"{one.index}", one.label, one.said, f"{one.times} of {seeds}"]
        for right, wrong, seeds, one in lines
    ]
    data: list[dict[str, Raw]] = [
        {
            "right": right, "wrong": wrong, "index": one.index, "label": one.label, "taken_for": one.said,
            "seeds_at_which": one.times, "seeds": seeds,
        }
        for right, wrong, seeds, one in lines
    ]  # fmt: skip
    return Table(
        "examples", "Examples on which arms disagree", [*columns, Column("Seeds", "number")], rows, data
    )


def _lines(found: list[Disagreement]) -> Iterator[tuple[str, str, int, Example]]:
    for one in found:
        for example in one.examples:
            yield one.right, one.wrong, one.seeds, example
