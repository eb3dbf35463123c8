"""Shared test examples from predictions on disk: what the comparison and the terminal say, and what breaks them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from assay.comparison.collect import collect
from assay.comparison.contract import check
from assay.comparison.model import Contrast, SharedExamples
from assay.comparison.predictions import read_scores
from assay.comparison.question import Question
from assay.comparison.run import compare, judge
from assay.comparison.terminal import text
from assay.evaluation import summary, table
from assay.records import RecordError

Make = Callable[..., Any]
EXAMPLES = 200


def scores(accuracy: float, *, arm_spread: float = 0.01, seeds: int = 6, seed: int = 0) -> np.ndarray:
    """[seeds, EXAMPLES] of right and wrong; hard examples are hard at every seed."""
    rng = np.random.default_rng(seed)
    level = accuracy + arm_spread * rng.normal(size=(seeds, 1))
    difficulty = np.random.default_rng(99).random(EXAMPLES) * 0.5 + rng.random((seeds, EXAMPLES)) * 0.5
    correct: np.ndarray = difficulty < level
    return correct


@pytest.fixture
def predicted(make: Make) -> Callable[..., Any]:
    """An experiment with its predictions on disk, from right and wrong by arm."""

    def build(arms: dict[str, np.ndarray], **settings: Any) -> Any:
        made = make({"accuracy": {arm: list(right.mean(axis=1)) for arm, right in arms.items()}}, **settings)
        for arm, right in arms.items():
            for seed, row in enumerate(right):
                write(made, arm, seed, row)
        return made

    return build


def write(
    made: Any, arm: str, seed: int, right: np.ndarray, labels: np.ndarray | None = None, *, told: bool = True
) -> None:
    """Predictions of ten classes, whose loss is 1 nat where they are wrong. told: the record tells of them."""
    rows = np.arange(len(right))
    labels = rows % 10 if labels is None else labels
    probabilities = np.zeros((len(right), 10))
    probabilities[rows, labels] = own = np.where(right, 1.0, np.exp(-1))
    probabilities[rows, (labels + 1) % 10] = 1 - own
    found = table.Predictions(labels, probabilities, -np.log(own))
    sha256 = table.write(found, made.path(arm, seed).with_name(table.FILE), threads=1)
    metrics = {name: one.model_dump() for name, one in summary.measurements(found).items()}
    if told:
        made.edit(arm, seed, "evaluate", lambda r: r.update(predictions_sha256=sha256, metrics=metrics))


def judged(made: Any, change: Callable[[dict[tuple[str, int], np.ndarray]], object]) -> Contrast:
    """The contrast in accuracy with some of the examples' scores changed."""
    collected = collect(made.experiment, made.folder)
    scores = {name: dict(found) for name, found in read_scores(made.experiment, collected).items()}
    change(scores["accuracy"])
    contract = check(made.experiment, collected.evidence)
    comparison = judge(Question.of(made.experiment), collected, contract, None, scores)
    return comparison.metrics[0].contrasts[0]


def shared(made: Any) -> SharedExamples:
    found = made.compare().metrics[0].contrasts[0].shared_examples
    assert found is not None
    return found


def test_everything_of_two_arms(predicted: Callable[..., Any]) -> None:
    mlp, cnn = scores(0.7, seed=1), scores(0.8, seed=2)
    made = predicted({"mlp": mlp, "cnn": cnn})
    found = shared(made)
    assert (found.reason, found.seeds, found.examples) == (None, 6, EXAMPLES)
    assert found.discordance["2"].arm_only == (cnn[2] & ~mlp[2]).sum()
    assert found.discordance["2"].baseline_only == (mlp[2] & ~cnn[2]).sum()
    assert found.new_both is not None
    assert found.new_seeds is not None
    assert found.new_both.standard_error > found.new_seeds.standard_error
    assert "For other seeds and other test examples the difference is +" in found.sentence
    assert "Variance of this mean, 6 seeds on 200 examples: seeds " in found.sentence
    assert found.sentence in " ".join(text(made.folder, width=1000).split("\n"))


def test_it_decides_no_verdict(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)})
    with_them = made.compare().metrics[0].contrasts[0]
    without = judged(made, lambda scores: scores.clear())
    assert with_them.shared_examples is not None
    assert without.shared_examples is None
    assert with_them.model_copy(update={"shared_examples": None}) == without


def test_a_verdict_that_other_examples_may_not_bear_is_told(predicted: Callable[..., Any]) -> None:
    """Six seeds agree on one example of 200 more."""
    mlp = np.repeat(scores(0.7, seeds=1), 6, axis=0)
    cnn = mlp.copy()
    cnn[:, np.flatnonzero(~mlp[0])[0]] = True
    made = predicted({"mlp": mlp, "cnn": cnn})
    contrast = made.compare().metrics[0].contrasts[0]
    assert contrast.verdict == "better"
    assert contrast.shared_examples.pooled.p == 1
    assert (
        "so the verdict holds on these test examples, and need not on others"
        in contrast.shared_examples.sentence
    )


def test_one_seed_has_mcnemar_and_no_variances(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seeds=1, seed=1), "cnn": scores(0.8, seeds=1, seed=2)})
    found = shared(made)
    assert found.variances is None
    assert found.reason == "one seed cannot tell what seeds do"
    assert found.pooled is not None
    assert found.pooled.p == pytest.approx(found.discordance["0"].p)


def test_arms_that_agree_on_every_example(predicted: Callable[..., Any]) -> None:
    right = scores(0.7)
    found = shared(predicted({"mlp": right, "cnn": right}))
    assert found.reason == "the two score the same on every example at every seed"
    assert found.sentence == ""


def test_loss_is_decomposed_too(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)}, metrics=[{"name": "loss"}])
    found = shared(made)
    assert found.variances is not None
    assert (found.discordance, found.pooled) == ({}, None)


def test_a_missing_pair_is_not_left_out(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)})
    made.edit("cnn", 3, "evaluate", lambda record: record.update(outcome="diverged"))
    assert "a pair is missing" in (shared(made).reason or "")


def test_predictions_that_are_gone_are_named(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)})
    found = judged(made, lambda scores: [scores.pop(("cnn", seed)) for seed in (1, 4)]).shared_examples
    assert found is not None
    assert found.reason == "no predictions of cnn at seed 1, 4"
    assert found.variances is None


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", None])
def test_damaged_predictions(predicted: Callable[..., Any], content: bytes | None) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)})
    path = made.path("cnn", 1).with_name("predictions.parquet")
    path.write_bytes(path.read_bytes()[:-40] if content is None else content)
    with pytest.raises(
        RecordError, match=r"seed-1/evaluate/predictions\.parquet: is not a whole Parquet file"
    ):
        made.compare()


def test_predictions_that_are_not_the_records(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)})
    write(made, "cnn", 2, scores(0.5)[0], told=False)
    with pytest.raises(RecordError, match="is not what the evaluation left"):
        made.compare()
    write(made, "cnn", 2, scores(0.8, seed=2)[2], labels=np.zeros(EXAMPLES, np.int64))
    with pytest.raises(RecordError, match="it is of another split or data set"):
        made.compare()


def test_runs_over_other_numbers_of_examples(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": np.ones((6, 9), bool), "cnn": np.ones((6, 9), bool)})
    found = judged(made, lambda scores: scores.update({("cnn", 0): np.ones(8, np.float32)})).shared_examples
    assert found is not None
    assert found.reason == "runs have predictions of 8 and 9 examples"


def test_a_broken_contract_says_nothing_of_examples(predicted: Callable[..., Any]) -> None:
    made = predicted({"mlp": scores(0.7, seed=1), "cnn": scores(0.8, seed=2)})
    made.edit("cnn", 1, "evaluate", lambda record: record.update(data_sha256="1" * 64))
    comparison = compare(
        experiment_file=made.folder / "experiment.yaml",
        results=made.folder,
        output=made.folder / "comparison",
    )
    assert not comparison.valid
    assert comparison.metrics[0].contrasts[0].shared_examples is None
