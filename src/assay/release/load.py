"""From a release file to a release, or to everything that is wrong with it."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from assay.config.advice import Kind, advice, example, is_number, reason, unknown_key
from assay.config.errors import ConfigError, Problem, short
from assay.config.errors import Path as KeyPath
from assay.config.yaml_file import Lines, read_yaml
from assay.release.schema import Release, not_growing

EXAMPLE = "config/release/digits.yaml"
RELEASE = Kind(
    Release,
    "config/release/README.md",
    {
        ("name",): "`name: digits`",
        ("registry",): "`registry: {model: digits}`",
        ("registry", "model"): "`model: digits`",
        ("versions", "stable"): "`@champion`, or the folder of a bundle",
        ("versions", "candidate"): "`@candidate`, or the folder of a bundle",
        ("serving", "cpus"): "`cpus: 2`",
        ("serving", "jwt"): "`jwt: {jwks: secrets/jwks.json, algorithms: [EdDSA], audience: predictions}`",
        ("serving", "jwt", "jwks"): "`jwks: secrets/jwks.json`",
        ("serving", "jwt", "algorithms"): "`algorithms: [EdDSA]`",
        ("serving", "jwt", "audience"): "`audience: predictions`",
        ("serving", "jwt", "issuer"): "`issuer: https://login.example.org`",
        ("serving", "signatures"): "`signatures: {secrets: secrets/callers}`",
        ("serving", "signatures", "secrets"): "`secrets: secrets/callers`",
        ("serving", "limits", "per_user"): "`per_user: 600/minute`",
        ("serving", "limits", "per_address"): "`per_address: 100`",
        ("routing", "tls"): "`tls: {certificate: tls/chain.pem, key: tls/key.pem}`",
        ("routing", "tls", "certificate"): "`certificate: tls/chain.pem`",
        ("routing", "tls", "key"): "`key: tls/key.pem`",
        ("routing", "trusted_proxies"): "`trusted_proxies: [10.0.0.0/8]`",
        ("ramp", "steps"): "`steps: [{share: 0.01}, {share: 0.1}, {share: 0.5}, {share: 1.0}]`",
        ("ramp", "steps", "share"): "`share: 0.1`",
        ("webhook",): "`webhook: https://hooks.example.org/releases`",
    },
)
_STAND_INS: dict[KeyPath, Any] = {
    ("name",): "x",
    ("registry",): {"model": "x"},
    ("registry", "model"): "x",
    ("serving", "jwt", "jwks"): "x",
    ("serving", "jwt", "algorithms"): ["EdDSA"],
    ("serving", "jwt", "audience"): "x",
    ("serving", "signatures", "secrets"): "x",
    ("routing", "tls", "certificate"): "x",
    ("routing", "tls", "key"): "x",
}
"""What stands for a required value that is wrong, so that the rest is looked at."""


def load(path: Path) -> Release:
    """Read and validate a release file. Raises: ConfigError with every problem found."""
    content, lines = read_yaml(path, kind="release", example=EXAMPLE)
    return from_mapping(content, file=str(path), lines=lines)


def from_mapping(content: Mapping[str, Any], *, file: str, lines: Lines | None = None) -> Release:
    """Validate a release in the form of the file. Raises: ConfigError."""
    return _Reader(file, content, lines or {}).read()


class _Reader:
    """One pass over one file: collects problems, so that all are reported at once."""

    def __init__(self, file: str, content: Mapping[str, Any], lines: Lines) -> None:
        self.file = file
        self.content = _without_empty(deepcopy(dict(content)), Release)
        self.lines = lines
        self.problems: dict[tuple[KeyPath, str], Problem] = {}

    def read(self) -> Release:
        self._refuse_booleans(self.content, ())
        release = self._validate()
        if release is not None and _same_folder(release):
            what = f"{release.registry.uri} is the registry's folder"
            self._add(("name",), what, "give the release another name, or the registry another `uri`")
        if self.problems:
            raise ConfigError(self.file, list(self.problems.values()))
        assert release is not None
        return release

    def _validate(self) -> Release | None:
        """What a whole section says is told only where its parts are right: wrong parts are put aside, once."""
        try:
            return Release.model_validate(self.content)
        except ValidationError as error:
            first = error.errors(include_url=False)
        for detail in first:
            self._translate(detail)
        self._check_growth()
        repaired = deepcopy(self.content)
        for detail in sorted(first, key=lambda detail: len(detail["loc"]), reverse=True):
            if detail["loc"]:
                _repair(repaired, detail["loc"])
        try:
            Release.model_validate(repaired)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if detail["type"] == "value_error":
                    self._translate(detail)
        return None

    def _check_growth(self) -> None:
        """As the model does, also where something else in a step is wrong."""
        ramp = self.content.get("ramp")
        steps = ramp.get("steps") if isinstance(ramp, dict) else None
        shares: list[Any] = [
            step.get("share") if isinstance(step, dict) else None
            for step in (steps if isinstance(steps, list) else ())
        ]
        right = [float(share) for share in shares if type(share) in (int, float) and 0 < share <= 1]
        wrong = not_growing(right) if right and len(right) == len(shares) else None
        if wrong is not None:
            self._add(("ramp",), wrong)

    def _add(self, path: KeyPath, what: str, instead: str = "") -> None:
        place = path
        while place and place not in self.lines:
            place = place[:-1]
        self.problems.setdefault((path, what), Problem(path, what, instead, self.lines.get(place)))

    def _translate(self, detail: ErrorDetails) -> None:
        path: KeyPath = detail["loc"]
        if not path:
            path = ("serving", "jwt")
            self._add(path, f"missing: {reason(detail)}", example(path, RELEASE))
        elif detail["type"] == "extra_forbidden":
            self._add(path, *unknown_key(detail, path, kind=RELEASE))
        elif detail["type"] == "missing":
            self._add(path, "missing", example(path, RELEASE))
        else:
            self._add(path, reason(detail), advice(detail, path, RELEASE))

    def _refuse_booleans(self, value: Any, path: KeyPath) -> None:
        """Yes and no where a number is meant would count as 1 and 0."""
        if isinstance(value, bool) and is_number(path, RELEASE):
            what = f"{short(value)} is not a number (YAML reads yes and no as true and false)"
            self._add(path, what, example(tuple(part for part in path if isinstance(part, str)), RELEASE))
        for key, item in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            self._refuse_booleans(item, (*path, key))


def _same_folder(release: Release) -> bool:
    return Path(release.folder, release.name) == Path(release.registry.uri)


def _without_empty(content: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """A section that is written and left empty is the section with its defaults."""
    for key, value in list(content.items()):
        field = model.model_fields.get(key)
        section = field.annotation if field else None
        if field is None or not (isinstance(section, type) and issubclass(section, BaseModel)):
            continue
        if value is None and not field.is_required():
            del content[key]
        elif isinstance(value, dict):
            content[key] = _without_empty(value, section)
    return content


def _repair(content: Any, path: tuple[int | str, ...]) -> None:
    """Put a wrong value aside: a default or a stand-in takes its place. A list with one is left out whole."""
    for length, part in enumerate(path[:-1]):
        if isinstance(path[length + 1], int):
            content.pop(part, None) if isinstance(content, dict) else None
            return
        content = content.get(part) if isinstance(content, dict) else None
    if isinstance(content, dict):
        content.pop(str(path[-1]), None)
        if path in _STAND_INS:
            content[str(path[-1])] = deepcopy(_STAND_INS[path])
