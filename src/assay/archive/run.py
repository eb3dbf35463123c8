"""The archive stage: all that a claim stands on, in one file that others can check and run again."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import assay
from assay.archive import zipped
from assay.archive.agreement import of_record
from assay.archive.crate import metadata
from assay.archive.gather import Content, Sources, gather
from assay.archive.private import private
from assay.archive.reading import ABOUT, CHECKSUMS, METADATA, RESULTS, About
from assay.archive.recompute import drawing
from assay.comparison.model import Comparison
from assay.comparison.run import read_experiment
from assay.config.schema import Experiment
from assay.image.lock import ImageLock
from assay.records import Record, sha256_bytes, sha256_file

README = """# {title}

{headline}

This is an archive of an experiment by Assay: an RO-Crate (`ro-crate-metadata.json` lists every file).

    assay verify FILE.crate.zip       check every file, and recompute every table and figure from the records
    assay reproduce FILE.crate.zip    run the experiment again from what is in here, and compare

| place | holds |
|---|---|
| `results/{name}/report/index.html` | the report |
| `results/{name}/comparison/` | verdicts, all numbers, the contract |
| `results/{name}/runs/`, `profile/`, `trace/` | a record for every job, with logs and predictions |
| `results/{name}/experiment.yaml` | the experiment with every default |
| `experiment/` | the experiment file as written, and the user's own modules |
| `code/` | Assay as it ran, with its lock files |
| `logs/` | what each job printed, without paths of the machine |
| `SHA256SUMS` | a checksum for every file: `sha256sum --check SHA256SUMS` |
"""


def archive(*, sources: Sources, output: Path) -> None:
    """Write the archive of a finished experiment: the same inputs give the same bytes.

    Raises: ValueError naming what is missing or damaged, or holds a secret.
    """
    experiment = read_experiment(sources.results / "experiment.yaml")
    content = gather(experiment, sources, private(sources.code))
    records = _records(experiment, content)
    _agree(experiment, sources.results, records)
    comparison = Comparison.read(sources.results / "comparison" / "comparison.json")
    content[ABOUT] = _about(experiment, sources)
    content["README.md"] = _readme(experiment, comparison)
    checksums = {place: (_sha256(one), _size(one)) for place, one in content.items()}
    content[METADATA] = metadata(
        experiment,
        comparison,
        records,
        checksums,
        sources.experiment_file.name,
        None if sources.image_lock is None else ImageLock.read(sources.image_lock),
    )
    listed = {place: sha256 for place, (sha256, _) in checksums.items()}
    listed[METADATA] = _sha256(content[METADATA])
    content[CHECKSUMS] = "".join(f"{listed[place]}  {place}\n" for place in sorted(listed)).encode()
    zipped.write(output, content)


def _about(experiment: Experiment, sources: Sources) -> bytes:
    about = About(
        assay=assay.__version__,
        experiment=experiment.name,
        experiment_file=sources.experiment_file.name,
        drawn_with=drawing(),
    )
    return about.model_dump_json(indent=1).encode() + b"\n"


def _readme(experiment: Experiment, comparison: Comparison) -> bytes:
    title = " ".join((experiment.question or experiment.name).split())
    return README.format(title=title, headline=comparison.headline, name=experiment.name).encode()


def _records(experiment: Experiment, content: dict[str, Content]) -> dict[str, Record]:
    """Every record that goes in, by its place there."""
    results = PurePosixPath(RESULTS, experiment.name)
    return {
        place: Record.read(path)
        for place, path in content.items()
        if isinstance(path, Path)
        and path.name == "record.json"
        and PurePosixPath(place).is_relative_to(results)
    }


def _agree(experiment: Experiment, results: Path, records: Mapping[str, Record]) -> None:
    """What `assay verify` would find wrong afterwards. Raises: ValueError naming the file."""
    for place, record in sorted(
        records.items(), key=lambda one: one[1].stage != "train"
    ):  # others stand on those
        inside = Path(place).relative_to(RESULTS, experiment.name)
        for file, text in of_record(experiment, results, inside, record):
            folder = (results / file).parent
            raise ValueError(
                f"{results / file}: {text}; it was changed after its run: remove {folder} and run again"
            )


def _sha256(content: Content) -> str:
    return sha256_bytes(content) if isinstance(content, bytes) else sha256_file(content)


def _size(content: Content) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size
