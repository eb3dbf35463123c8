"""The experiment of the noise floor: one arm of an experiment and its second self."""

from itertools import count

from assay.config.arm import NAME_LENGTH
from assay.config.schema import Experiment


def second_self(experiment: Experiment) -> tuple[str, str]:
    """The arm that is measured twice, and what it is called the second time: as no other arm is."""
    arm = experiment.noise.arm or experiment.baseline
    stem = arm[: NAME_LENGTH - len("-again99")]
    names = (f"{stem}-again{number or ''}" for number in count())
    return arm, next(name for name in names if name not in experiment.arms)


def repeated(experiment: Experiment) -> Experiment:
    """Two arms that are one, at the seeds and in as many blocks as `noise` says; all else as in the experiment."""
    (arm, again), noise = second_self(experiment), experiment.noise
    blocks = experiment.profile.blocks if noise.blocks is None else noise.blocks
    profile = {"enabled": experiment.profile.enabled and blocks > 0, "blocks": blocks}
    return experiment.model_copy(
        update={
            "baseline": arm,
            "arms": dict.fromkeys((arm, again), experiment.arms[arm]),
            "seeds": experiment.seeds[: noise.seeds],
            "profile": experiment.profile.model_copy(update=profile),
        }
    )
