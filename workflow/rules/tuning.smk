"""What a sweep tries and selects, and how the jobs of a tuned arm are told their settings."""

from assay.config.sweep import SELECTED, TRIALS
from assay.config.trials import (
    as_swept,
    changes_cost,
    costly,
    points,
    settings_at,
    swept_arms,
    trial_count,
)

SWEPT = swept_arms(EXPERIMENT)
"""Arms whose settings a sweep selects."""


def selection(name):
    """The file with the settings that the sweep selects for an arm; none for one that is not tuned. An arm's second self
    has those of the arm."""
    arm, again = second_self(EXPERIMENT)
    name = arm if name == again else name
    return [f"results/{EXPERIMENT.name}/sweep/{name}/{SELECTED}"] if name in SWEPT else []


def selections():
    """Of all arms that are tuned."""
    return [path for name in EXPERIMENT.arms for path in selection(name)]


def sweep_files():
    """What is told of the search: of each arm, all its trials and what was selected."""
    return [f"{os.path.dirname(path)}/{file}" for path in selections() for file in (SELECTED, TRIALS)]


def trial_records(arm, trials=None):
    """One path per trial and seed; trials: which; None: all of the arm's."""
    trials = range(trial_count(EXPERIMENT.sweep, arm)) if trials is None else trials
    pattern = f"results/{EXPERIMENT.name}/sweep/{arm}/trial-{{trial}}/seed-{{seed}}/train/record.json"
    return expand(pattern, trial=trials, seed=EXPERIMENT.sweep.seeds)


def settings_of(name):
    """What a job of an arm is given: the settings, or the file that will hold them."""
    found = selection(name)
    return f"@{found[0]}" if found else (EXPERIMENT.arms | REPEATED.arms)[name]


def costly_selection(name):
    """The same for jobs that are no matter of a setting without cost, however it is tuned."""
    tuned = selection(name) and changes_cost(EXPERIMENT.sweep.space_of(Path(selection(name)[0]).parent.name))
    return selection(name) if tuned else []


def costly_settings(name):
    found = costly_selection(name)
    return f"@{found[0]}" if found else costly(spec_of((EXPERIMENT.arms | REPEATED.arms)[name]))


POINTS = (
    {arm: points(EXPERIMENT.sweep, arm) for arm in SWEPT}
    if SWEPT and EXPERIMENT.sweep.method != "bayesian"
    else {}
)
"""Of each trial whose settings are known now."""


def trial_params(wildcards):
    """Of one trial. A point that is known is written out, so that a change of the space reruns the trials that it changes."""
    arm, trial = wildcards.arm, int(wildcards.trial)
    if not POINTS:
        return trained("train", arm, f"@{proposal(arm, trial)}#{trial}")
    settings = settings_at(EXPERIMENT.arms[arm], POINTS[arm][trial])
    rung = int(wildcards.rung) if "rung" in wildcards.keys() else len(RUNGS)
    options = {"until": RUNGS[rung]} if rung < len(RUNGS) else {}
    if rung:
        earlier, compared = before_rung(wildcards)
        options |= {"rung": f"{compared}#{trial}", "earlier": earlier}
    return trained("train", arm, settings, **options)


RUNGS = EXPERIMENT.sweep.prune.after if SWEPT and EXPERIMENT.sweep.prune else []
"""Epochs after which trials are compared, and bad ones stopped."""


def rung_records(arm, rung):
    """What is compared at a rung: one path per trial and seed."""
    pattern = f"results/{EXPERIMENT.name}/sweep/{arm}/trial-{{trial}}/seed-{{seed}}/rung-{rung}/record.json"
    return expand(pattern, trial=range(trial_count(EXPERIMENT.sweep, arm)), seed=EXPERIMENT.sweep.seeds)


def before_rung(wildcards):
    """What a trial was at the rung before, and which trials go on from there; nothing before the first."""
    rung = int(wildcards.rung) if "rung" in wildcards.keys() else len(RUNGS)
    if not rung:
        return []
    folder = f"results/{EXPERIMENT.name}/sweep/{wildcards.arm}"
    return [
        f"{folder}/trial-{wildcards.trial}/seed-{wildcards.seed}/rung-{rung - 1}/record.json",
        f"{folder}/rungs/rung-{rung - 1}.json",
    ]


def proposal(arm, trial):
    """The file of the round in which a trial is proposed."""
    return f"results/{EXPERIMENT.name}/sweep/{arm}/proposed/round-{trial // EXPERIMENT.sweep.per_round}.json"


def sweep_params(arm):
    """What a search or a selection depends on: how the arm is swept, and from which settings."""
    sweep = EXPERIMENT.sweep.model_dump(mode="json", exclude={"space", "arms", "equal_budgets"})
    domains = EXPERIMENT.sweep.model_copy(update={"space": EXPERIMENT.sweep.space_of(arm), "arms": {}})
    return stage_params(
        "sweep",
        sweep=sweep | domains.model_dump(mode="json", include={"space"}),
        settings=as_swept(EXPERIMENT.arms[arm], EXPERIMENT.sweep.space_of(arm)),
    )
