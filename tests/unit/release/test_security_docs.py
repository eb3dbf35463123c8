"""What docs/security.md shows is run: the client's snippet, the collectors' settings, the names of fields and of tests."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_log import served

from assay.release.layout import Layout
from assay.release.load import EXAMPLE, load
from assay.release.log import PredictionLog
from assay.release.observations import Prediction
from assay.release.schema import Release, Signatures
from assay.release.security import signatures
from assay.release.security.salt import user_digest
from assay.release.security.signatures import SignatureCheck
from assay.release.security.tokens import Verifier

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "security.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_the_client_s_snippet_signs_what_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "SLOTS", 2**10)
    snippet = blocks("python")[-1]
    names: dict[str, Any] = {}
    exec(snippet, names)
    callers = tmp_path / "callers"
    callers.write_text("client " + "c" * 32 + "\n")
    callers.chmod(0o600)
    check = SignatureCheck(Signatures(secrets=str(callers)), tmp_path / "nonces", "stable")
    headers = names["signed"]("client", b"c" * 32, "POST", "/predict?a=b", b"body")
    received = {name.lower().encode(): value.encode() for name, value in headers.items()}
    assert check.verify(b"POST", b"/predict?a=b", received, b"body", b"r") == b"client"


def test_the_keys_to_try_it_with_are_taken_by_the_example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[0], {})
    settings = load(ROOT / EXAMPLE).serving.jwt
    assert settings is not None
    token = capsys.readouterr().out.strip().encode()
    salt = bytes(32)
    assert Verifier(settings, salt).verify(token).user == user_digest(salt, "alice")


def test_the_release_file_s_section_is_one() -> None:
    serving = yaml.safe_load(blocks("yaml")[0])["serving"]
    Release.model_validate({"name": "r", "registry": {"model": "m"}, "serving": serving})


def test_collectors_find_the_files_and_their_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    promtail, filebeat = (yaml.safe_load(block) for block in blocks("yaml")[1:])
    monkeypatch.chdir(tmp_path)
    writer = PredictionLog(Layout(Path("releases") / "digits").predictions("stable"))
    writer.put(served())
    writer.close()
    (scrape,) = promtail["scrape_configs"]
    (static,) = scrape["static_configs"]
    (stream,) = filebeat["filebeat.inputs"]
    for pattern in (static["labels"]["__path__"], *stream["paths"]):
        assert len(list(tmp_path.glob(pattern))) == 1
    json_stage, labels, time_stage = scrape["pipeline_stages"]
    fields = set(Prediction.__annotations__)
    assert set(json_stage["json"]["expressions"].values()) <= fields
    assert set(labels["labels"]) | {time_stage["timestamp"]["source"]} <= set(
        json_stage["json"]["expressions"]
    )
    assert filebeat["processors"][0]["timestamp"]["field"] in fields


def test_every_field_of_a_line_is_described_and_every_test_that_is_named_is_there() -> None:
    assert [name for name in Prediction.__annotations__ if f"`{name}`" not in TEXT] == []
    tests = "".join(
        path.name + path.read_text()
        for folder in ("unit/release", "integration")
        for path in (ROOT / "tests" / folder).glob("test_*.py")
    )
    named = re.findall(r"`(test_\w+(?:\.py)?)…?`", TEXT)
    assert len(named) > 10
    assert [name for name in named if name not in tests] == []
