"""The archive of a run passes the public RO-Crate validator, and a broken one does not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "archive"))

from made_archive import Whole

from assay.archive import zipped
from assay.archive.gather import Sources
from assay.archive.run import archive
from assay.reporting.run import report

REPOSITORY = Path(__file__).parents[2]
VALIDATOR = shutil.which("rocrate-validator")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(VALIDATOR is None, reason="rocrate-validator is not installed: make programs"),
]

SCHEMA = "http://schema.org/"
WORKFLOW_RUN = "https://w3id.org/ro/terms/workflow-run#"
ELSEWHERE = {
    "conformsTo": "http://purl.org/dc/terms/conformsTo",
    "File": f"{SCHEMA}MediaObject",
    "ComputationalWorkflow": "https://bioschemas.org/ComputationalWorkflow",
    "FormalParameter": "https://bioschemas.org/FormalParameter",
    "input": "https://bioschemas.org/ComputationalWorkflow#input",
    "output": "https://bioschemas.org/ComputationalWorkflow#output",
    "ContainerImage": f"{WORKFLOW_RUN}ContainerImage",
    "containerImage": f"{WORKFLOW_RUN}containerImage",
    "registry": f"{WORKFLOW_RUN}registry",
    "sha256": f"{WORKFLOW_RUN}sha256",
}
"""Terms that RO-Crate and its profiles do not have from schema.org."""
PLANT = """
import json, sys
from datetime import timedelta
from io import BytesIO
import requests
from requests_cache import CachedSession
from urllib3 import HTTPResponse
session = CachedSession(cache_name=sys.argv[1], backend="sqlite", expire_after=-1)
for address, content in json.load(sys.stdin).items():
    headers = {"Content-Type": "application/ld+json"}
    response = requests.Response()
    response.status_code, response.url, response.headers = 200, address, requests.structures.CaseInsensitiveDict(headers)
    response._content = json.dumps(content).encode()
    response.raw = HTTPResponse(BytesIO(response._content), headers, 200, preload_content=False, decode_content=False)
    response.request = requests.Request("GET", address, headers={"Accept": "application/ld+json, application/json"}).prepare()
    session.cache.save_response(response)
"""
"""Puts the JSON-LD contexts, which the validator would fetch, where it looks first."""


@pytest.fixture(scope="module")
def crate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crate")
    made = Whole(folder, seeds=2, blocks=0, metrics=({"name": "accuracy"},))
    results = made.make()
    report(results=results, output=results / "report")
    (folder / "experiment file.yaml").write_text("name: digits\n")
    sources = Sources(
        experiment_file=folder / "experiment file.yaml",
        overrides="{}",
        results=results,
        logs=folder / "logs",
        code=REPOSITORY,
        module_roots=[folder],
    )
    path = folder / "digits.crate.zip"
    archive(sources=sources, output=path)
    return path


@pytest.fixture(scope="module")
def cache(crate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The validator's cache, with stand-ins for the two contexts: every term that the metadata use, as RO-Crate 1.1 has it."""
    with ZipFile(crate) as file:
        graph = json.loads(file.read("ro-crate-metadata.json"))["@graph"]
    terms = {key for one in graph for key in one if not key.startswith("@")}
    for one in graph:
        terms |= {one["@type"]} if isinstance(one["@type"], str) else set(one["@type"])
    terms |= set(ELSEWHERE)
    context = {"@context": {term: ELSEWHERE.get(term, f"{SCHEMA}{term}") for term in sorted(terms)}}
    addresses = ("https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context")
    path = tmp_path_factory.mktemp("cache") / "http"
    assert VALIDATOR is not None
    subprocess.run(
        [Path(VALIDATOR).with_name("python"), "-c", PLANT, path],
        input=json.dumps(dict.fromkeys(addresses, context)),
        check=True,
        text=True,
        timeout=600,
    )
    return path


def validated(crate: Path, cache: Path, severity: str) -> tuple[int, str]:
    """The validator's exit status, and what it says on one line."""
    done = subprocess.run(
        [
            *(
                str(VALIDATOR),
                "-y",
                "--disable-color",
                "validate",
                str(crate),
                "--offline",
                "--cache-path",
                str(cache),
            ),
            *("-p", "workflow-run-crate-0.5", "-l", severity, "-v", "--no-paging"),
        ],
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def changed(crate: Path, folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    with ZipFile(crate) as file:
        content: dict[str, bytes | Path] = {name: file.read(name) for name in file.namelist()}
    metadata = content["ro-crate-metadata.json"]
    assert isinstance(metadata, bytes)
    graph = json.loads(metadata)
    change({one["@id"]: one for one in graph["@graph"]})
    content["ro-crate-metadata.json"] = json.dumps(graph).encode()
    zipped.write(folder / "changed.zip", content)
    return folder / "changed.zip"


def test_it_passes(crate: Path, cache: Path) -> None:
    status, words = validated(crate, cache, "required")
    assert status == 0, words
    assert "[OK] RO-Crate is a valid workflow-run-crate-0.5" in words


@pytest.mark.parametrize(
    ("entity", "key", "what"),
    [
        ("./", "license", "must specify a license"),
        ("#run", "instrument", "instrument"),
        ("code/Snakefile", "programmingLanguage", "programmingLanguage"),
    ],
)
def test_a_broken_one_does_not(
    crate: Path, cache: Path, tmp_path: Path, entity: str, key: str, what: str
) -> None:
    status, words = validated(
        changed(crate, tmp_path, lambda graph: graph[entity].pop(key)), cache, "required"
    )
    assert status == 1 and "FAILED" in words and what in words
