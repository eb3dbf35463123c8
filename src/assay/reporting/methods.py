"""A paragraph of methods and one of limitations, written from the records."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from assay.comparison.model import BCA
from assay.config.arm import AdamW, Arm
from assay.data.store import MANIFEST, Manifest, StoreError
from assay.reporting.latex import escape
from assay.reporting.numbers import p_value
from assay.reporting.read import Results
from assay.reporting.statements import Number, Part, Quote, Sentences, listed, text_of
from assay.reporting.tuning_text import paths, source_of, tuning

EXPERIMENT = "experiment.yaml"
TRAIN = "runs/*/seed-*/train/record.json"
EVALUATE = "runs/*/seed-*/evaluate/record.json"
PROFILE = "profile/block-*/*/record.json"
COMPARISON = "comparison/comparison.json"
CONTRACT = "comparison/contract.json"
NOISE = "noise/floor.json"
MOST = 4
"""Different values that a sentence lists."""
ENOUGH_PAIRS = 30
"""From here on the simulation of docs/statistics.md finds BCa intervals to be nearly what they say, under symmetry."""
NARROW = (
    "Bootstrap intervals of so few pairs are too narrow: they hold the true difference less often than their level says, "
    "and verdicts rest on the exact tests."
)
PACKAGES = ("torch", "torchvision", "timm", "numpy")


def methods(results: Results) -> list[Part]:
    """What was compared on which data, how it was trained, measured and judged, and where."""
    parts = [*_design(results), *_data(results), *tuning(results), *_training(results)]
    return [*parts, *_profile(results), *_statistics(results), *_machine(results)]


def limitations(results: Results) -> list[Part]:
    """What the numbers do not show: what was not measured, what is too little, what went another way than planned."""
    narrow = [f"{NARROW} "] if too_narrow(results) else []
    return [*_reach(results), *narrow, *_missing(results), *_circumstances(results)]


def too_narrow(results: Results) -> bool:
    """Whether an interval comes from so few pairs that it holds the difference less often than its level says."""
    return any(
        line.interval is not None
        and line.interval.method == BCA
        and line.interval.low is not None
        and line.pairs < ENOUGH_PAIRS
        for metric in results.metrics
        for line in metric.contrasts
    )


def markdown(methods: Sentences, limitations: Sentences) -> str:
    return f"# Methods\n\n{text_of(methods)}\n\n# Limitations\n\n{text_of(limitations)}\n"


def latex(methods: Sentences, limitations: Sentences) -> str:
    r"""Two paragraphs, to be `\input` into a section."""
    texts = [
        rf"\paragraph{{{title}}} {escape(text_of(parts))}"
        for title, parts in (("Methods.", methods), ("Limitations.", limitations))
    ]
    return "\n\n".join(texts) + "\n"


# --- methods --------------------------------------------------------------------------------------------


def _design(results: Results) -> list[Part]:
    experiment = results.experiment
    arms: list[Sentences] = [[Quote(arm, COMPARISON, "arms.*")] for arm in results.arms]
    shown = arms if len(arms) <= MOST else [*arms[: MOST - 1], ["others"]]
    differing: list[Sentences] = [[Quote(factor, EXPERIMENT, "factors.*")] for factor in experiment.factors]
    differing += [["what was tuned for each (", *listed(found), ")"]] if (found := paths(results)) else []
    # The contract is what knows: where it was broken, the limitations say that they differ in more.
    rest = " and in no other setting" if results.contract.valid else ", as declared"
    return [
        "We compared ", Number(f"{len(arms):,}", EXPERIMENT, "arms", "items"), " arms (", *listed(shown),
        "; baseline ", Quote(experiment.baseline, EXPERIMENT, "baseline"), "), which differ in ",
        *(listed(differing) or ["nothing that a factor declares"]), f"{rest}. ",
    ]  # fmt: skip


def _data(results: Results) -> list[Part]:
    parts: list[Part] = ["Data: ", Quote(results.experiment.data.source, EXPERIMENT, "data.source")]
    try:
        manifest = Manifest.read(results.folder / "data" / MANIFEST)
    except (StoreError, OSError):
        return [*parts, ". "]
    where = f"data/{MANIFEST}"
    sizes: list[Sentences] = [
        [Number(f"{manifest.splits[split].count:,}", where, f"splits.{split}.count"), f" {words}"]
        for split, words in (
            ("train", "images to train on"),
            ("validation", "to choose by"),
            ("test", "to test on"),
        )
        if split in manifest.splits
    ]
    classes: Part = Number(f"{len(manifest.classes):,}", where, "classes", "items")
    parts += [", ", *listed(sizes), ", in ", classes, " classes"]
    for digest in sorted(results.surroundings.data)[:1]:
        parts += [" (SHA-256 of the manifest ", Quote(digest[:12], TRAIN, "data_sha256"), ")"]
    return [*parts, ". No training and no choice of the experiment used the test images. "]


def _training(results: Results) -> list[Part]:
    seeds = results.experiment.seeds
    parts: list[Part] = ["Each arm was trained at ", Number(f"{len(seeds):,}", EXPERIMENT, "seeds", "items")]
    parts += [" seed" if len(seeds) == 1 else " seeds", " for "]
    parts += _setting(results, "training.epochs", lambda arm: arm.training.epochs)
    once = all(arm.training.epochs == 1 for arm in results.experiment.arms.values())
    parts += [" epoch with batches of " if once else " epochs with batches of "]
    parts += _setting(results, "training.batch_size", lambda arm: arm.training.batch_size)
    parts += [" by "]
    parts += _setting(results, "training.optimizer.name", lambda arm: arm.training.optimizer.name)
    parts += [" (peak learning rate "]
    parts += _setting(
        results, "training.optimizer.learning_rate", lambda arm: arm.training.optimizer.learning_rate
    )
    if not any(isinstance(arm.training.optimizer, AdamW) for arm in results.experiment.arms.values()):
        parts += [", momentum "]
        parts += _setting(results, "training.optimizer.momentum", _momentum)
    parts += [", weight decay "]
    parts += _setting(
        results, "training.optimizer.weight_decay", lambda arm: arm.training.optimizer.weight_decay
    )
    parts += [", schedule "]
    parts += _setting(results, "training.schedule.name", lambda arm: arm.training.schedule.name)
    parts += ["), in "]
    parts += _setting(results, "execution.precision", lambda arm: arm.execution.precision)
    parts += [" arithmetic. "]
    selects = {arm.training.select for arm in results.experiment.arms.values()}
    if selects == {"best"}:
        parts += ["The weights of the epoch with the highest validation accuracy were kept. "]
    elif selects == {"last"}:
        parts += ["The weights of the last epoch were kept. "]
    batches = next((line.status for line in results.contract.variables if line.name == "batches"), None)
    if batches == "equal":
        parts += ["At the same seed all arms saw the same examples in the same order. "]
    return parts


def _momentum(arm: Arm) -> float:
    assert not isinstance(arm.training.optimizer, AdamW)
    return arm.training.optimizer.momentum


def _setting(results: Results, path: str, get: Callable[[Arm], Any]) -> list[Part]:
    """Its value where all arms share it, else each value with its arms."""
    by_value: dict[Any, list[str]] = {}
    for name in results.arms:
        by_value.setdefault(get(results.experiment.arms[name]), []).append(name)
    if len(by_value) == 1:
        return [_part(next(iter(by_value)), *_source_of_all(results, path))]
    groups: list[Sentences] = []
    for value, arms in list(by_value.items())[:MOST]:
        names: list[Sentences] = [[Quote(arm, COMPARISON, "arms.*")] for arm in arms[:MOST]]
        groups.append([_part(value, *source_of(results, arms[0], path)), " (", *listed(names), ")"])
    return listed(groups)


def _source_of_all(results: Results, path: str) -> tuple[str, str]:
    """Of a setting that all arms share; the first arm's alone where it was tuned."""
    source = source_of(results, results.arms[0], path)
    return (EXPERIMENT, f"arms.*.{path}") if source[0] == EXPERIMENT else source


def _part(value: Any, file: str, field: str) -> Part:
    if isinstance(value, str):
        return Quote(value, file, field)
    return Number(f"{value:g}" if isinstance(value, float) else f"{value:,}", file, field)


def _profile(results: Results) -> list[Part]:
    profile = results.experiment.profile
    if not profile.enabled:
        return []
    sizes: list[Sentences] = [
        [Number(f"{size:,}", EXPERIMENT, "profile.batch_sizes.*", "one of")] for size in profile.batch_sizes
    ]
    return [
        "Costs were measured in ", Number(f"{profile.blocks:,}", EXPERIMENT, "profile.blocks"),
        " profile blocks" if profile.blocks != 1 else " profile block", ", in each of which every arm was visited on the same "
        "device in counterbalanced order, each visit in a fresh process, with batches of ", *listed(sizes), ". ",
    ]  # fmt: skip


def _statistics(results: Results) -> list[Part]:
    found = results.comparison
    parts: list[Part] = [
        "Arms were compared by pairs of runs at the same seed and of visits in the same block: "
        "BCa bootstrap intervals (", Number(f"{100 * found.confidence:g}", COMPARISON, "confidence", "percent"), "%, ",
        Number(f"{found.resamples:,}", COMPARISON, "resamples"), " resamples of whole pairs) and sign-flip tests at level ",
        Number(f"{found.alpha:g}", COMPARISON, "alpha"), ", adjusted for the number of hypotheses. ",
    ]  # fmt: skip
    if results.noise is not None:
        arm = Quote(results.noise.arm, NOISE, "arm")
        parts += [
            "A difference counts only beyond the noise floor, for which ",
            arm,
            " was run a second time as another arm. ",
        ]
    if (looks := found.sequential) is not None:
        after: list[Sentences] = [
            [Number(f"{seeds:,}", COMPARISON, "sequential.looks.*", "one of")] for seeds in looks.looks
        ]
        parts += [
            "Looks after ", *listed(after), " seeds had been declared beforehand; p-values and repeated "
            "confidence intervals of metrics paired by seed hold over all of them, by a group-sequential sign-flip test with error "
            "spending of the type ", Quote(looks.spending, COMPARISON, "sequential.spending"), ". ",
        ]  # fmt: skip
    return parts


def _machine(results: Results) -> list[Part]:
    parts: list[Part] = ["Trainings ran on ", *_seen(results, "Device", "environment.device.name", cut=" (")]
    parts += [" with Python ", *_seen(results, "Python", "environment.python")]
    versions: list[Sentences] = [
        [f"{name} ", Quote(next(iter(found)), TRAIN, f"environment.packages.{name}")]
        for name in PACKAGES
        if len(found := results.surroundings.packages.get(name, Counter())) == 1
    ]
    if versions:
        parts += [", ", *listed(versions)]
    drivers = results.surroundings.facts.get("Driver", Counter())
    if len(drivers) == 1:
        parts += [", driver ", Quote(next(iter(drivers)), TRAIN, "environment.device.driver")]
    parts += [" and Assay ", *_seen(results, "Assay", "code.version", cut=" (")]
    images = results.surroundings.images
    if len(images) == 1 and not results.surroundings.on_host:
        (image,) = map(dict, images)
        digests: list[Sentences] = [
            [words, Quote(image[key], TRAIN, f"environment.image.{key}")]
            for key, words in (("base_digest", "base "), ("sif_sha256", "image with SHA-256 "))
            if key in image
        ]
        parts += [", in one container image (", *listed(digests), ")"]
    return [*parts, "."]


def _seen(results: Results, fact: str, field: str, cut: str = "") -> list[Part]:
    """All values of one circumstance that trainings have, as records write it."""
    texts = sorted(results.surroundings.facts.get(fact, ()))
    values = list(dict.fromkeys(text.rpartition(cut)[0] if cut and cut in text else text for text in texts))
    return listed(
        [[Quote(value, TRAIN.replace("train", "*"), field)] for value in values[:MOST]] or [["unknown"]]
    )


# --- limitations ----------------------------------------------------------------------------------------


def _reach(results: Results) -> list[Part]:
    seeds = results.experiment.seeds
    smallest = 2.0 ** (1 - len(seeds))
    parts: list[Part] = [
        "Intervals and tests speak of training again on the same data and testing on the same test split: other test examples would "
        "give another difference, and one data set is no sample of data sets. With ", Number(f"{len(seeds):,}", EXPERIMENT, "seeds", "items"),
        " seed" if len(seeds) == 1 else " seeds",
    ]  # fmt: skip
    if smallest > results.comparison.alpha:
        shown = Number(p_value(smallest), EXPERIMENT, "seeds", "smallest p")
        level = Number(f"{results.comparison.alpha:g}", COMPARISON, "alpha")
        return [*parts, " no test can reach the level ", level, ": its smallest p is ", shown, ". "]
    if smallest >= 0.001:
        return [
            *parts,
            " the smallest p that a test can reach is ",
            Number(p_value(smallest), EXPERIMENT, "seeds", "smallest p"),
            ". ",
        ]
    return [*parts, " small differences may still go unseen. "]


def _missing(results: Results) -> list[Part]:
    """What was not measured, and which runs ended otherwise than planned."""
    parts: list[Part] = []
    if not results.experiment.profile.enabled:
        parts += ["Costs were not measured. "]
    if not any(run.energy for run in results.runs):
        parts += ["Energy was not measured. "]
    if results.noise is None:
        parts += ["The noise floor was not measured: how much an arm differs from itself here is not known. "]
    done = sum(run.outcome == "completed" for run in results.runs)
    if done < len(results.runs):
        parts += [
            Number(f"{done:,}", EVALUATE, "outcome", "count of completed"), " of ",
            Number(f"{len(results.runs):,}", EXPERIMENT, "arms seeds", "product"),
            " runs completed; a comparison that lacks a pair is inconclusive, since what failed was not chosen by chance. ",
        ]  # fmt: skip
    resumed = sum(run.resumed for run in results.runs)
    if resumed:
        count = Number(f"{resumed:,}", TRAIN, "resumed", "count of true")
        parts += [
            count,
            " of the trainings went on after an interruption, and their times and energy are left out. ",
        ]
    shared = sum(run.shared for run in results.runs)
    if shared:
        count = Number(f"{shared:,}", TRAIN, "details.shared", "count")
        parts += [
            count,
            " of the trainings shared their GPU with others, and their times and energy are left out. ",
        ]
    invalid = sum(visit.outcome == "invalid" for visit in results.visits)
    if invalid:
        count = Number(f"{invalid:,}", PROFILE, "outcome", "count of invalid")
        parts += [
            count,
            " visits were measured in circumstances in which their numbers say nothing, and are left out. ",
        ]
    return parts


def _circumstances(results: Results) -> list[Part]:
    parts: list[Part] = []
    if (looks := results.comparison.sequential) is not None and looks.stopped_early:
        parts += [
            "The experiment was stopped early, after ",
            Number(f"{looks.seeds:,}", COMPARISON, "sequential.seeds"),
            " seeds, because its first metric was decided: the difference is overstated on average; its interval allows for "
            "the looks. ",
        ]
    if not results.contract.valid:
        parts += ["Arms differ in what no factor declares: nothing is claimed. "]
    unknown = [line.name for line in results.contract.variables if line.status == "unknown"]
    if unknown:
        count = Number(f"{len(unknown):,}", CONTRACT, "variables.*.status", "count of unknown")
        names: list[Sentences] = [[Quote(name, CONTRACT, "variables.*.name")] for name in unknown[:MOST]]
        shown = names if len(unknown) <= MOST else [*names, ["others"]]
        be = "is" if len(unknown) == 1 else "are"
        parts += [
            "Of what must be equal between arms, ",
            count,
            f" {be} not in every record (",
            *listed(shown),
            "). ",
        ]
    if results.surroundings.on_host:
        parts += ["Records come from the host's own software, not from a pinned image. "]
    warnings = len(results.comparison.warnings)
    if warnings:
        count = Number(f"{warnings:,}", COMPARISON, "warnings", "items")
        parts += [
            "The records carry ",
            count,
            " warning" if warnings == 1 else " warnings",
            " about the circumstances. ",
        ]
    if parts and isinstance(parts[-1], str):
        parts[-1] = parts[-1].rstrip()
    return parts
