"""The release file: every mistake told at once, in the user's words; what is generated is current."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from assay.config.arm import Section
from assay.config.errors import ConfigError
from assay.release.document import ROOT, generated, main, schema, sections
from assay.release.judge.judge import as_split
from assay.release.load import EXAMPLE, from_mapping, load
from assay.release.routing.split import UNITS, units
from assay.release.schema import Release, Step

FILE = ROOT / EXAMPLE
CONTENT = yaml.safe_load(FILE.read_text())


def mistakes(tmp_path: Path, *changes: tuple[str, str]) -> list[str]:
    """What is told of the example with text replaced, without the file's name."""
    text = FILE.read_text()
    for before, after in changes:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    return [line.removeprefix(f"{file}:") for line in str(caught.value).splitlines()]


def line_of(text: str) -> int:
    whole = FILE.read_text()
    return whole[: whole.index(text)].count("\n") + 1


def test_the_example_is_right_and_a_section_may_be_empty() -> None:
    release = load(FILE)
    assert [step.share for step in release.ramp.steps] == [0.01, 0.1, 0.5, 1.0]
    assert (
        from_mapping(CONTENT | {"ramp": None, "drift": None, "webhook": None}, file="x").drift.window == 500
    )


def test_mistakes_of_every_kind_are_told_at_once(tmp_path: Path) -> None:
    changes = [
        ("name: digits\n\n", "name: My Digits\n\n"),
        ("workers: 2", "worker: 2"),
        ("[EdDSA]", "[none]"),
        ("6000/minute", "6000/min"),
        ("  port: 8080", "  port: yes"),
        ("{share: 0.1, users: 500", "{share: 0.1, users: 0"),
        ("{share: 0.5,", "{share: 0.05,"),
        ("webhook: null", "webhook: ftp://x"),
        ("least_seconds: 60}", "least_seconds: 60, most_seconds: 5}"),
    ]
    found = mistakes(tmp_path, *changes)
    for place, words in (
        ("name: digits\n\n", "name: 'My Digits' is not a name; write lower-case letters"),
        ("workers: 2", "serving.worker: unknown key; did you mean `workers`?"),
        ("[EdDSA]", "serving.jwt.algorithms[0]: 'none' should be 'HS256'"),
        (
            "6000/min",
            "serving.limits.per_user: '6000/min' is not of the form that it must have; write e.g. `per_",
        ),
        ("port: 8080", "routing.port: true is not a number (YAML reads yes and no"),
        ("users: 500", "ramp.steps[1].users: 0 should be greater than or equal to 1"),
        ("ramp:", "ramp: shares [0.01, 0.1, 0.05, 1.0] do not grow from step to step up to 1"),
        ("shadow: {", "ramp.shadow: least_seconds is above most_seconds"),
        (
            "webhook: null",
            "webhook: 'ftp://x' is not of the form that it must have; write e.g. `webhook: https://",
        ),
    ):
        told = [line for line in found if line.startswith(f"{line_of(place)}: {words}")]
        assert len(told) == 1, (words, found)
    assert len(found) == len(changes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, ["name: missing; write e.g. `name: digits`", "registry: missing; write e.g. `registry: {model"]),
        ({"name": "x", "registry": 3}, ["registry: 3 should be keys with values;"]),
        (
            {"name": "x", "registry": {"model": "x"}},
            ["serving.jwt: missing: users are split by a verified id"],
        ),
        (
            {"name": "x", "registry": {"model": "x"}, "ramp": {"steps": []}},
            ["ramp.steps: is empty; write e.g. `steps: [{share: 0.01}"],
        ),
        (
            {"name": "x", "registry": {"model": "x"}, "serving": {"jwt": {}}},
            ["serving.jwt.audience: missing"],
        ),
        (
            CONTENT | {"name": "registry"},
            ["name: releases/registry is the registry's folder; give the release"],
        ),
        (CONTENT | {"judge": {"level": float("nan")}}, ["judge.level: nan should be"]),
        (CONTENT | {"judge": {"level": "high"}}, ["judge.level: 'high' should be a valid number"]),
        (
            CONTENT | {"routing": {"address": "localhost; x"}},
            ["routing.address: 'localhost; x' is no IP address; write 127.0.0.1, or 0.0.0.0"],
        ),
        (CONTENT | {"routing": [1]}, ["routing: should be keys with values"]),
        (
            CONTENT | {"routing": {"early_users": ["alice", "*"]}},
            ["routing.early_users: `*` is nobody here; name users, and write how many of all have"],
        ),
        *(
            (
                CONTENT | {"routing": {"header": name}},
                [f"routing.header: {name} is a header that the front or"],
            )
            for name in ("X-Assay-User", "x-assay-nonce", "Authorization", "Host", "Content-Type")
        ),
        (
            CONTENT | {"ramp": {"steps": [{"share": 0.00001}, {"share": 1.0}]}},
            ["ramp.steps[0].share: 1e-05 should be greater than or equal to 0.0001; write e.g. `share: 0.1`"],
        ),
        (
            CONTENT | {"ramp": {"steps": [{"share": 0.5}, {"share": 0.50001}, {"share": 1.0}]}},
            ["ramp: shares [0.5, 0.5, 1.0] do not grow from step to step up to 1; write e.g. 0.01, 0.1"],
        ),
        (CONTENT | {"ramp": {"steps": [{"share": 1.0}, 7]}}, ["ramp.steps[1]: 7 should be keys with values"]),
    ],
)
def test_what_is_wrong_is_named(content: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(content, file="r.yaml")
    for word in words:
        assert word in str(caught.value), str(caught.value)
    assert "Traceback" not in str(caught.value)


_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 70_000), st.floats(), st.text(max_size=8))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_PATHS = st.sampled_from(
    [
        (key,) if deeper is None else (key, deeper)
        for key, value in CONTENT.items()
        for deeper in [None, *(value if isinstance(value, dict) else ())]
    ]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_PATHS, _VALUES), min_size=1, max_size=4))
def test_whatever_stands_there_is_read_or_refused(changes: list[tuple[tuple[str, ...], Any]]) -> None:
    content = yaml.safe_load(FILE.read_text())
    for path, value in changes:
        place = content
        for part in path[:-1]:
            place = place[part] if isinstance(place, dict) and isinstance(place.get(part), dict) else {}
        place[path[-1]] = value
    try:
        release = from_mapping(content, file="r.yaml")
    except ConfigError as error:
        assert error.problems
    else:
        assert isinstance(release, Release)


@pytest.mark.parametrize("share", [0.0001, 0.00125, 0.00985, 1 / 3, 2 / 3, 0.99994])
def test_a_share_is_the_one_that_fronts_make_of_it(share: float) -> None:
    """Else the ramp would set it again and again, and the judge would wait for another."""
    made = Step(share=share).share
    assert made == units(share) / UNITS == as_split(made) and abs(made - share) < 0.51 / UNITS


def test_a_release_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tls = {"certificate": "tls/chain.pem", "key": "tls/key.pem"}
    content = CONTENT | {
        "serving": CONTENT["serving"] | {"signatures": {"secrets": "env:CALLERS"}},
        "routing": {"tls": tls},
    }
    placed = from_mapping(content, file="r.yaml").placed()
    monkeypatch.chdir("/")
    assert placed.placed() == placed
    assert (placed.folder, placed.registry.uri) == (f"{tmp_path}/releases", f"{tmp_path}/releases/registry")
    assert placed.serving.jwt is not None and placed.serving.signatures is not None
    assert placed.serving.jwt.jwks == f"{tmp_path}/secrets/jwks.json"
    assert placed.serving.signatures.secrets == "env:CALLERS"
    assert placed.routing.tls is not None and placed.routing.tls.key == f"{tmp_path}/tls/key.pem"
    served = from_mapping(CONTENT | {"registry": {"model": "m", "uri": "https://x"}}, file="r.yaml").placed()
    assert served.registry.uri == "https://x"


def test_generated_files_are_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in generated().items():
        assert (ROOT / path).read_text(encoding="utf-8") == text, f"run `make docs` for {path}"
    monkeypatch.setattr("assay.release.document.ROOT", tmp_path)
    (tmp_path / "config" / "release").mkdir(parents=True)
    assert main(["--check"]) == 1
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_every_section_is_in_the_reference() -> None:
    meant = {model for model in Section.__subclasses__() if model.__module__ == "assay.release.schema"}
    assert meant == {model for _, model in sections()} | {Release}


def test_an_editor_refuses_what_the_program_refuses() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    validator.validate(CONTENT)
    for change in ({"routing": {"port": 0}}, {"nmae": "x"}, {"ramp": {"steps": []}}, {"webhook": "ftp://x"}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(CONTENT | change)
