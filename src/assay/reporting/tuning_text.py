"""The sentences of methods about a sweep, and where a setting that was tuned stands in its records."""

from assay.config.sweep import FOLDER, SELECTED, TRIALS
from assay.reporting.read import Results
from assay.reporting.statements import Number, Part, Quote, Sentences, listed

EXPERIMENT = "experiment.yaml"
SPACE = "sweep.space sweep.arms.*"
MOST = 4
"""Different settings or arms that a sentence lists."""
_METHODS = {"grid": "grid search", "random": "random search", "bayesian": "Bayesian search (TPE)"}
_BEST = {
    "validation_accuracy": "the highest mean validation accuracy",
    "validation_loss": "the lowest mean validation loss",
}


def paths(results: Results) -> list[Sentences]:
    """The settings that were tuned for any arm."""
    sweep = results.experiment.sweep
    if sweep is None:
        return []
    found = sorted({path for one in results.sweeps for path in sweep.space_of(one.arm)})
    shown: list[Sentences] = [[Quote(path, EXPERIMENT, SPACE)] for path in found]
    return shown if len(found) <= MOST else [*shown[: MOST - 1], ["others"]]


def source_of(results: Results, arm: str, path: str) -> tuple[str, str]:
    """File and field of an arm's setting: of one that was tuned, what was selected."""
    sweep = results.experiment.sweep
    if sweep is not None and sweep.space_of(arm):
        return f"{FOLDER}/{arm}/{SELECTED}", f"settings.{path}"
    return EXPERIMENT, f"arms.{arm}.{path}"


def tuning(results: Results) -> list[Part]:
    """How arms were tuned, with what budget, at which seeds, and by what the best trial was told."""
    sweep = results.experiment.sweep
    if sweep is None or not results.sweeps:
        return []
    counts: list[Sentences] = [
        [Number(f"{len(one.trials):,}", f"{FOLDER}/{one.arm}/{TRIALS}", "trials", "items"), " for ",
         Quote(one.arm, EXPERIMENT, "arms")]
        for one in results.sweeps
    ]  # fmt: skip
    shown = counts if len(counts) <= MOST else [*counts[: MOST - 1], ["so on"]]
    parts: list[Part] = [
        "Before, ", *listed(paths(results)), " had been tuned by ", _METHODS[sweep.method], " (trials: ", *listed(shown),
        "), every trial at ", Number(f"{len(sweep.seeds):,}", EXPERIMENT, "sweep.seeds", "items"),
        " seed" if len(sweep.seeds) == 1 else " seeds", " that the comparison does not have. Of each arm the trial with ",
        _BEST[sweep.metric], " was selected, and its settings trained anew. ",
    ]  # fmt: skip
    if sweep.prune is not None:
        after: list[Sentences] = [
            [Number(f"{epochs:,}", EXPERIMENT, "sweep.prune.after.*", "one of")]
            for epochs in sweep.prune.after
        ]
        parts += [
            "Trials were compared after ",
            *listed(after),
            " epochs, and the worse ones stopped there. ",
        ]
    failed: list[Sentences] = [
        [Quote(one.arm, EXPERIMENT, "arms")]
        for one in results.sweeps
        if one.trials[one.selected].score is None
    ]
    if failed:
        parts += ["No trial of ", *listed(failed[:MOST]), " completed: the first one's settings were taken. "]
    return parts
