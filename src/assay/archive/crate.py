"""The archive's metadata: a Workflow Run RO-Crate.

https://w3id.org/ro/wfrun/workflow/0.5, on RO-Crate 1.1 and Workflow RO-Crate 1.0: one workflow, and the one run of it that
made the results. What each job did is told by the records, in more detail than Provenance Run Crate has words for.
"""

import json
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import assay
from assay.archive.reading import CODE, EXPERIMENT, IMAGE, LOGS, RESULTS
from assay.comparison.model import Comparison
from assay.config.schema import Experiment
from assay.image.lock import ImageLock
from assay.records import Record

WORKFLOW_CRATE = "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
WORKFLOW = f"{CODE}/Snakefile"
MAIN = (
    "comparison/comparison.json",
    "comparison/contract.json",
    "comparison/metrics.csv",
    "report/index.html",
)
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
NO_LICENSE = "No licence is stated for the results: ask their authors. Assay's code is under Apache-2.0."
_FORMATS = {
    ".css": "text/css",
    ".csv": "text/csv",
    ".gz": "application/gzip",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".parquet": "application/vnd.apache.parquet",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".py": "text/x-python",
    ".safetensors": "application/octet-stream",
    ".sif": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".tex": "application/x-tex",
    ".toml": "application/toml",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}
_TOP = {
    RESULTS: "What the experiment left: records, logs, comparison, report, and the experiment with every default",
    EXPERIMENT: "The experiment file as written, and the user's own modules",
    CODE: "Assay as it ran: the package, the workflow, lock files",
    LOGS: "What each job printed; paths and names of users are taken out",
    IMAGE: "The container image that jobs ran in, or its lock",
}


def metadata(
    experiment: Experiment,
    comparison: Comparison,
    records: Mapping[str, Record],
    checksums: Mapping[str, tuple[str, int]],
    written: str,
    lock: ImageLock | None,
) -> bytes:
    """`ro-crate-metadata.json`: a function of its arguments, without the time and the place of its making.

    records: by their name in the archive. checksums: of every other file, its SHA-256 and its bytes. written: the name of
    the experiment file as written.
    """
    from rocrate.rocrate import ROCrate

    crate = ROCrate(version="1.1")
    started = min(record.started for record in records.values())
    finished = max(record.finished for record in records.values())
    crate.metadata.extra_contexts.append(TERMS)
    crate.name = f"Assay: {experiment.question or experiment.name}"
    crate.description = comparison.headline
    crate.datePublished = finished
    crate.license = experiment.archive.license or NO_LICENSE
    files = _files(crate, checksums)
    results = [files[f"{RESULTS}/{experiment.name}/{name}"] for name in MAIN]
    workflow = _workflow(crate, files, {"input": files[f"{EXPERIMENT}/{written}"], "output": results[0]})
    action = _action(experiment, records) | {
        "instrument": workflow,
        "object": files[f"{EXPERIMENT}/{written}"],
        "result": [*results, *(files[place] for place in sorted(records))],
        "startTime": started,
        "endTime": finished,
    }
    if lock is not None:
        action["containerImage"] = _context(crate, f"#image-{lock.sif_sha256[:16]}", _container(lock))
    crate.root_dataset["mentions"] = _context(crate, "#run", action)
    for address, (name, version) in PROFILES.items():
        profile = {"@type": "CreativeWork", "name": name, "version": version}
        crate.root_dataset.append_to("conformsTo", _context(crate, address, profile))
    return (
        json.dumps(crate.metadata.generate(), indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"
    )


def _files(crate: Any, checksums: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Every file by its place, below the folder at the top that it lies in."""
    found: dict[str, Any] = {}
    for place, (sha256, size) in sorted(checksums.items()):
        path = PurePosixPath(place)
        properties: dict[str, Any] = {"name": place, "contentSize": str(size), "sha256": sha256}
        properties["encodingFormat"] = _FORMATS.get(path.suffix, "text/plain")
        if place == "README.md":
            properties["about"] = {"@id": "./"}
        if place == WORKFLOW:
            properties |= _as_workflow(crate)
        found[place] = crate.add_file(dest_path=place, properties=properties)
    for name in sorted({place.split("/")[0] for place in checksums if "/" in place}):
        folder = crate.add_directory(dest_path=name, properties={"name": name, "description": _TOP[name]})
        parts = [one for place, one in found.items() if place.startswith(f"{name}/")]
        folder["hasPart"] = parts if len(parts) > 1 else parts[0]
    return found


def _as_workflow(crate: Any) -> dict[str, Any]:
    from rocrate.model.computerlanguage import get_lang

    return {
        "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow"],
        "name": "Assay's workflow",
        "version": assay.__version__,
        "license": "Apache-2.0",
        "programmingLanguage": crate.add(get_lang(crate, "snakemake")),
        "conformsTo": {"@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"},
    }


def _workflow(crate: Any, files: Mapping[str, Any], sides: Mapping[str, Any]) -> Any:
    """The Snakefile, with what goes in and what comes out. sides: the files that are its `input` and `output`."""
    workflow = files[WORKFLOW]
    crate.mainEntity = workflow
    crate.metadata.append_to("conformsTo", {"@id": WORKFLOW_CRATE})
    names = {"input": "experiment-file", "output": "comparison"}
    for side, example in sides.items():
        parameter = _context(
            crate,
            f"#{names[side]}",
            {
                "@type": "FormalParameter",
                "name": names[side],
                "additionalType": "File",
                "conformsTo": {"@id": "https://bioschemas.org/profiles/FormalParameter/1.0-RELEASE"},
                "workExample": example,
            },
        )
        workflow[side] = parameter
        example["exampleOfWork"] = parameter
    return workflow


def _action(experiment: Experiment, records: Mapping[str, Record]) -> dict[str, Any]:
    """The one run of the workflow."""
    outcomes = [record.outcome for record in records.values()]
    return {
        "@type": "CreateAction",
        "name": f"Run of the experiment {experiment.name}",
        "description": f"{len(experiment.arms)} arms at {len(experiment.seeds)} seeds; {outcomes.count('completed')} of "
        f"{len(outcomes)} records are of jobs that completed. Each tells its host, device, packages, code and times.",
        "actionStatus": "http://schema.org/CompletedActionStatus",
    }


def _container(lock: ImageLock) -> dict[str, Any]:
    registry, _, name = lock.base_name.removeprefix("docker://").partition("/")
    return {
        "@type": "ContainerImage",
        "additionalType": {"@id": "https://w3id.org/ro/terms/workflow-run#SIFImage"},
        "name": lock.name,
        "registry": registry if name else "docker.io",
        "sha256": lock.sif_sha256,
        "description": f"From {lock.base_name}@{lock.base_digest}",
    }


def _context(crate: Any, identifier: str, properties: dict[str, Any]) -> Any:
    from rocrate.model.contextentity import ContextEntity

    kind = properties.pop("@type")
    return crate.add(ContextEntity(crate, identifier, properties={"@type": kind, **properties}))
