"""From an experiment file to a resolved experiment, or to everything that is wrong with it."""

from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from assay.config.advice import (
    NAME_ADVICE,
    advice,
    example,
    instead_of,
    is_number,
    reason,
    settings_of_arms,
    unknown_key,
    without_tags,
)
from assay.config.arm import ARM_SECTIONS, Arm
from assay.config.bases import BASES, DEFAULT_BASE, SCHEME, own_base, parse
from assay.config.errors import ConfigError, Problem, short
from assay.config.errors import Path as KeyPath
from assay.config.merge import ends, holds, merge, value_at
from assay.config.metrics import METRICS, TO_TARGET, holds_every_difference
from assay.config.resolve import Difference, names_setting, undeclared
from assay.config.schema import LEAST_NOISE_PAIRS, Experiment
from assay.config.sweep import FIRST_SEED
from assay.config.sweep_mistakes import check_sweep
from assay.config.yaml_file import Lines, read_yaml
from assay.registry import digest_of

__all__ = ["ConfigError", "from_mapping", "load"]

MOST_SEEDS = 1_000_000
_OTHER_KEYS = tuple(name for name in Experiment.model_fields if name != "arms")
_MAY_BE_EMPTY = (
    *ARM_SECTIONS,
    "profile",
    "telemetry",
    "comparison",
    "noise",
    "sweep",
    "bounds",
    "archive",
    "image",
    "tracking",
    "question",
    "baseline",
)
_ANY_MODEL = {"model": {"source": "builtin:mlp"}}


def load(path: Path, *, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Read, validate and resolve an experiment file.

    overrides: values that replace those of the file, section by section, as from the command line.
    Raises: ConfigError with every problem found.
    """
    content, lines = read_yaml(path)
    if overrides:
        content = merge(content, overrides)
    return _Reader(str(path), content, lines, set(ends(overrides or {}))).read()


def from_mapping(content: Mapping[str, Any], *, file: str, lines: Lines | None = None) -> Experiment:
    """Validate and resolve an experiment in the form of the file. Raises: ConfigError."""
    return _Reader(file, content, lines or {}, set()).read()


class _Reader:
    """One pass over one file: collects problems, so that all are reported at once."""

    def __init__(self, file: str, content: Mapping[str, Any], lines: Lines, overridden: set[KeyPath]) -> None:
        self.file = file
        self.content = {
            key: value for key, value in content.items() if not (value is None and key in _MAY_BE_EMPTY)
        }
        self.lines = lines
        self.overridden = overridden
        self.problems: dict[tuple[KeyPath, str], Problem] = {}

    def read(self) -> Experiment:
        self._check_top()
        sections = self._arms()
        rest = {name: deepcopy(self.content[name]) for name in _OTHER_KEYS if name in self.content}
        self._normalise(rest, list(sections))
        arms = self._validate_arms(sections)
        experiment = self._validate(rest, sections)
        self._check_meaning(rest, arms)
        if experiment is not None and experiment.sweep is not None:
            names, factors, seeds = list(experiment.arms), experiment.factors, experiment.seeds
            check_sweep(experiment.sweep, arms, names=names, factors=factors, seeds=seeds, add=self._add)
        if self.problems:
            raise ConfigError(self.file, list(self.problems.values()))
        assert experiment is not None
        return experiment

    def _add(self, path: KeyPath, what: str, instead: str = "") -> None:
        place = path
        while place and place not in self.lines and place not in self.overridden:
            place = place[:-1]
        given = any(path[:length] in self.overridden for length in range(1, len(path) + 1))
        problem = Problem(path, what, instead, None if given else self.lines.get(place), given)
        self.problems.setdefault((path, what), problem)

    def _check_top(self) -> None:
        known = (*_OTHER_KEYS, "arms", *ARM_SECTIONS)
        for key in self.content:
            if key not in known:
                self._add((str(key),), "unknown key", instead_of(str(key), known))
        for key in ARM_SECTIONS:
            value = self.content.get(key, {})
            if not isinstance(value, dict):
                self._add(
                    (key,), f"{short(value)} is not a section", f"write keys with values below `{key}:`"
                )
                self.content[key] = {}

    def _arms(self) -> dict[str, dict[str, Any]]:
        """Each arm's sections: those of the file, overridden by its own."""
        given = self.content.get("arms")
        if not isinstance(given, dict) or len(given) < 2:
            self._add(
                ("arms",),
                "missing" if "arms" not in self.content else "at least two arms are compared",
                "write two names with their settings, e.g. `arms: {a: {model: {source: builtin:mlp}}, b: …}`",
            )
        arms: dict[str, dict[str, Any]] = {}
        for name, own in (given if isinstance(given, dict) else {}).items():
            if not isinstance(own, dict | None):
                self._add(("arms", str(name)), f"{short(own)} is not a section", "write its settings as keys")
                own = None
            filled = {key: value for key, value in (own or {}).items() if value is not None}
            arms[str(name)] = merge(self._shared(), filled)
        return arms

    def _shared(self) -> dict[str, Any]:
        """The sections that hold for all arms."""
        return {name: self.content[name] for name in ARM_SECTIONS if name in self.content}

    def _normalise(self, rest: dict[str, Any], arms: list[str]) -> None:
        """The short forms that the file allows, written out."""
        seeds = rest.get("seeds")
        if isinstance(seeds, int) and not isinstance(seeds, bool):
            if not 1 <= seeds <= MOST_SEEDS:
                instead = f"write 1 to {MOST_SEEDS}; at least 1, and six are the least for a verdict"
                self._add(("seeds",), f"{short(seeds)} seeds", instead)
            rest["seeds"] = list(range(seeds if 1 <= seeds <= MOST_SEEDS else 1))
        elif "seeds" in rest and not isinstance(seeds, list | bool):
            self._add(("seeds",), f"{short(seeds)} is neither a whole number nor a list", example(("seeds",)))
            rest["seeds"] = [0]
        sweep = rest.get("sweep")
        if isinstance(sweep, dict) and type(count := sweep.get("seeds")) is int and 1 <= count <= MOST_SEEDS:
            sweep["seeds"] = list(range(FIRST_SEED, FIRST_SEED + count))
        metrics = rest.get("metrics")
        if isinstance(metrics, list):
            rest["metrics"] = [{"name": item} if isinstance(item, str) else item for item in metrics]
        rest.setdefault("baseline", arms[0] if arms else "none")
        if isinstance(rest.get("factors"), str):
            rest["factors"] = [rest["factors"]]

    def _validate_arms(self, sections: dict[str, dict[str, Any]]) -> dict[str, Arm]:
        """The arms that are right; without any arm, the shared sections are looked at by themselves."""
        arms: dict[str, Arm] = {}
        for name, own in (sections or {"": _ANY_MODEL | deepcopy(self._shared())}).items():
            sound = not self._drop_booleans(own, ("arms", name), ())
            try:
                arm = Arm.model_validate(own)
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    self._translate(detail, ("arms", name))
            else:
                arms |= {name: arm} if sound else {}
        return arms

    def _validate(self, rest: dict[str, Any], sections: dict[str, dict[str, Any]]) -> Experiment | None:
        self._drop_booleans(rest, (), ())
        try:
            return Experiment.model_validate(rest | {"arms": sections})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if detail["loc"][:1] != ("arms",) or detail["loc"][-1:] == ("[key]",):
                    self._translate(detail, ())
            return None

    def _drop_booleans(self, section: dict[str, Any], base: KeyPath, path: KeyPath) -> bool:
        """Refuse yes and no where a number is meant: they would count as 1 and 0. True if there were any."""
        dropped = False
        for key, value in list(section.items()):
            below = (*path, key)
            items = value if isinstance(value, list) else [value]
            booleans = [item for item in items if isinstance(item, bool)]
            if isinstance(value, dict):
                dropped |= self._drop_booleans(value, base, below)
            elif booleans and is_number(below):
                what = f"{short(booleans[0])} is not a number (YAML reads yes and no as true and false)"
                self._add(self._place(below, base), what, example(below))
                # What is required stays there, so that it is not told as missing too.
                if key == "seeds":
                    section[key] = [0]
                else:
                    del section[key]
                dropped = True
        return dropped

    def _translate(self, detail: ErrorDetails, base: KeyPath) -> None:
        """A validation error in the words and at the place of the file."""
        path = without_tags(detail["loc"])
        where = self._place(path, base)
        if path[1:2] == ("options",) and len(path) > 2:
            # One value is of one type out of many: told once, and not as each type's refusal.
            where = self._place(path[:3], base)
            what = f"{short(value_at(self.content, where))} is no value of an option"
            self._add(where, what, "write a finite number, text, true, false, null, or a list of these")
        elif detail["type"] == "extra_forbidden":
            self._add(where, *unknown_key(detail, path, in_arm=bool(base)))
        elif detail["type"] == "string_pattern_mismatch" and path[-1:] == ("[key]",):
            self._add(where[:-1], "not a name", NAME_ADVICE)
        elif detail["type"] == "missing":
            self._add(where, "missing", example(path))
        else:
            self._add(where, reason(detail), advice(detail, path))

    def _place(self, path: KeyPath, base: KeyPath) -> KeyPath:
        """Where it stands: in the arm, or in the sections for all arms, whose mistakes are told once."""
        if not base or holds(self.content, (*base, *path)):
            return (*base, *path)
        shared = holds(self.content, path[:1]) and holds(self.content, path[:-1])
        return path if shared else (*base, *path)

    def _check_meaning(self, rest: Mapping[str, Any], arms: dict[str, Arm]) -> None:
        """What the types cannot tell; each check looks at its own part, right or wrong as the others may be."""
        given = self.content.get("arms")
        names = [str(name) for name in given] if isinstance(given, dict) else []
        baseline, factors = rest["baseline"], rest.get("factors")
        if names and isinstance(baseline, str) and baseline not in names:
            self._add(("baseline",), f"{baseline!r} is not an arm", instead_of(baseline, names))
        if isinstance(rest.get("seeds"), list):
            for seed in _repeated(rest["seeds"]):
                self._add(("seeds",), f"{short(seed)} stands twice", "a seed counts once: write each once")
        for name, arm in arms.items():
            if wrong := arm.unshared_batch:
                self._add(self._place(("training", "batch_size"), ("arms", name)), *wrong)
            if refused := arm.refused_execution:
                self._add(self._place(("execution", refused[0]), ("arms", name)), *refused[1:])
        self._check_sharing(rest.get("bounds"), arms)
        self._check_metrics(rest)
        self._check_looks(rest)
        self._check_noise(rest, names)
        self._check_image(rest.get("image"))
        if not isinstance(factors, list) or not all(isinstance(factor, str) for factor in factors):
            return
        for number, factor in enumerate(factors):
            if not names_setting(factor, known := settings_of_arms()):
                what = f"{factor!r} names no setting of an arm"
                self._add(("factors", number), what, instead_of(factor, known))
        if len(arms) == len(names) and isinstance(baseline, str) and baseline in arms:
            self._check_contract(undeclared(arms, baseline, factors), factors)

    def _check_contract(self, found: list[Difference], factors: list[str]) -> None:
        missing = dict.fromkeys(difference.path for difference in found)
        for difference in found:
            path = tuple(difference.path.split("."))
            names = [difference.arm, difference.baseline]
            holders = [name for name in names if holds(self.content, ("arms", name, *path))]
            self._add(
                ("arms", [*holders, difference.arm][0], *path),
                f"undeclared difference: {difference.baseline} has {_value(difference.before)}, "
                f"{difference.arm} has {_value(difference.after)}",
                f"make them equal, or declare it: `factors: [{', '.join([*factors, *missing])}]`",
            )

    def _check_sharing(self, bounds: object, arms: Mapping[str, Arm]) -> None:
        runs = bounds.get("runs_per_gpu", 1) if isinstance(bounds, dict) else 1
        several = next((name for name, arm in arms.items() if arm.execution.processes > 1), None)
        if isinstance(runs, int) and runs > 1 and several is not None:
            what = f"{runs} runs cannot share a GPU where one run takes several ({several}: execution.devices, nodes)"
            self._add(
                ("bounds", "runs_per_gpu"), what, "write `runs_per_gpu: 1`, or `devices: 1` and `nodes: 1`"
            )

    def _check_metrics(self, rest: Mapping[str, Any]) -> None:
        metrics, profile = rest.get("metrics"), rest.get("profile")
        profiled = not isinstance(profile, dict) or profile.get("enabled", True) is not False
        comparison = rest.get("comparison")
        aimed = isinstance(comparison, dict) and comparison.get("target_accuracy") is not None
        seen: set[str] = set()
        for number, choice in enumerate(metrics if isinstance(metrics, list) else ()):
            name = choice.get("name") if isinstance(choice, dict) else None
            if not isinstance(name, str):
                continue
            path: KeyPath = ("metrics", number)
            metric = METRICS.get(name)
            if metric is None:
                self._add(path, f"unknown metric {short(name)}", instead_of(name, METRICS))
            elif metric.pairing != "seed" and not profiled:
                what = f"{name} comes from the profile, which is off"
                self._add(path, what, "remove it, or write `profile: {enabled: true}`")
            elif name in TO_TARGET and not aimed:
                instead = "write the validation accuracy to reach, e.g. `comparison: {target_accuracy: 0.9}`"
                self._add(path, f"{name} needs a target", instead)
            margin = choice.get("margin")
            if metric and isinstance(margin, int | float) and holds_every_difference(metric, margin):
                what = f"{margin:g} holds every difference: {name} lies between 0 and 1"
                self._add((*path, "margin"), what, f"write {margin:g}% as `margin: {margin / 100:g}`")
            if name in seen:
                self._add(path, f"{short(name)} stands twice", "keep one")
            seen.add(name)

    def _check_looks(self, rest: Mapping[str, Any]) -> None:
        comparison, seeds = rest.get("comparison"), rest.get("seeds")
        looks = comparison.get("looks") if isinstance(comparison, dict) else None
        if isinstance(looks, list) and looks and isinstance(seeds, list) and len(seeds) not in looks:
            what = f"{len(seeds)} seeds are none of the looks"
            self._add(
                ("comparison", "looks"),
                what,
                f"end with the number of seeds, e.g. `looks: [8, 12, {len(seeds)}]`",
            )

    def _check_noise(self, rest: Mapping[str, Any], names: list[str]) -> None:
        noise = rest.get("noise")
        if not isinstance(noise, dict) or not names:
            return
        arm = noise.get("arm")
        if isinstance(arm, str) and arm not in names:
            self._add(("noise", "arm"), f"{arm!r} is not an arm", instead_of(arm, names))
        profile = rest.get("profile")
        unprofiled = isinstance(profile, dict) and profile.get("enabled") is False
        if (
            noise.get("enabled") is True
            and noise.get("seeds") == 0
            and (unprofiled or noise.get("blocks") == 0)
        ):
            self._add(("noise",), "measures nothing", "write `enabled: false`, or leave out `seeds: 0`")
        seeds = rest.get("seeds")
        most = len(seeds) if isinstance(seeds, list) else MOST_SEEDS
        comparison = rest.get("comparison")
        looks = comparison.get("looks") if isinstance(comparison, dict) else None
        if isinstance(looks, list) and looks and isinstance(looks[0], int):
            most = min(most, looks[0])
        for key, limit in (("seeds", most), ("blocks", None)):
            count = noise.get(key)
            if not isinstance(count, int) or isinstance(count, bool):
                continue
            if 0 < count < LEAST_NOISE_PAIRS:
                what = f"{count} {'pair tells' if count == 1 else 'pairs tell'} no spread"
                self._add(("noise", key), what, f"write at least {LEAST_NOISE_PAIRS}, or 0 for none")
            elif limit is not None and count > limit:
                what = f"{count} of {limit} seeds"
                self._add(("noise", key), what, f"write at most {limit}, or null for all")

    def _check_image(self, image: Any) -> None:
        if not isinstance(image, dict):
            return
        base, reference = image.get("base"), image.get("reference")
        if (base is None) == (reference is None):
            what = "has neither base nor reference" if base is None else "has both base and reference"
            self._add(("image",), what, f"write one of them, e.g. `image: {{base: {DEFAULT_BASE}}}`")
        if isinstance(base, str) and base not in BASES:
            self._add(("image", "base"), f"unknown base {short(base)}", instead_of(base, BASES))
        if isinstance(reference, str):
            try:
                own_base(reference)
            except ValueError as error:
                self._add(("image", "reference"), str(error), _with_digest(reference))


def _with_digest(reference: str) -> str:
    """What to write instead of a reference to a tag, with the digest if a registry can be asked."""
    try:
        name, tag, digest = parse(reference)
    except ValueError:
        return ""
    found = digest or digest_of(name, tag or "latest")
    at = found or "sha256:…"
    how = "" if found else f"; `skopeo inspect {reference}` tells the digest"
    return f"write `reference: {SCHEME}{name}{f':{tag}' if tag else ''}@{at}`{how}"


def _repeated(seeds: list[Any]) -> list[int]:
    counts = Counter(seed for seed in seeds if isinstance(seed, int))
    return sorted(seed for seed, count in counts.items() if count > 1)


def _value(value: Any) -> str:
    return value if value == "nothing" else short(value)
