"""What a Bayesian search tries next: TPE (Bergstra et al. 2011) as Optuna has it, round by round.

Each round begins anew from the records of all rounds before, by number of the trial: whichever job ended first decides
nothing, and a run that was killed goes on with the same proposals.
"""

from pathlib import Path
from typing import Any

from assay.config.arm import Arm, spec_of
from assay.config.sweep import Domain, Sweep
from assay.config.trials import Point, settings_at, trial_count
from assay.sweep.model import Proposal, Proposed, Trial
from assay.sweep.read import points_tried, read_trial, round_path

MOST_STARTUP = 10


def startup_trials(trials: int) -> int:
    """How many are drawn at random before a model of the scores is made: a third, ten at most."""
    return min(MOST_STARTUP, max(1, trials // 3))


def propose(experiment: str, arm: str, sweep: Sweep, settings: Arm, folder: Path, number: int) -> None:
    """Write the trials of one round.

    Raises: RecordError for a record of an earlier trial that is missing, damaged or of something else; ValueError for a
    point that makes no settings.
    """
    first = number * sweep.per_round
    before = points_tried(sweep, arm, folder, first)
    trials = [
        read_trial(experiment, arm, sweep, settings, folder, index, point)
        for index, point in enumerate(before)
    ]
    count = min(sweep.per_round, trial_count(sweep, arm) - first)
    found = ask(sweep, sweep.space_of(arm), trials, count, number)
    proposals = [
        Proposal(number=index, point=point, settings=spec_of(settings_at(settings, point)))
        for index, point in enumerate(found, first)
    ]
    Proposed(experiment=experiment, arm=arm, trials=proposals).write(round_path(folder, number))


def ask(sweep: Sweep, space: dict[str, Domain], trials: list[Trial], count: int, number: int) -> list[Point]:
    """The next points, from what all trials before came to. The same for the same arguments."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(
        seed=sweep.seed * 10_007 + number,
        n_startup_trials=startup_trials(sweep.trials or 1),
        constant_liar=True,
    )
    study = optuna.create_study(sampler=sampler, direction="maximize" if sweep.maximise else "minimize")
    distributions = {path: _distribution(domain) for path, domain in space.items()}
    worst = float("-inf") if sweep.maximise else float("inf")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params={path: _encoded(space[path], trial.point[path]) for path in space},
                distributions=distributions,
                value=worst if trial.score is None else trial.score,
            )
        )
    asked = [study.ask(distributions).params for _ in range(count)]
    return [{path: _decoded(space[path], params[path]) for path in space} for params in asked]


def _distribution(domain: Domain) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(domain, list):
        return CategoricalDistribution(range(len(domain)))
    kind, (low, high) = domain.kinds[0], domain.ends
    if "integer" in kind:
        return IntDistribution(int(low), int(high), log=kind.startswith("log"))
    return FloatDistribution(low, high, log=kind.startswith("log"))


def _encoded(domain: Domain, value: Any) -> Any:
    return domain.index(value) if isinstance(domain, list) else value


def _decoded(domain: Domain, value: Any) -> Any:
    """Of a list the value; numbers of a range have six digits, as those of a random search."""
    if isinstance(domain, list):
        return domain[value]
    low, high = domain.ends
    return value if isinstance(value, int) else min(high, max(low, float(f"{value:.6g}")))
