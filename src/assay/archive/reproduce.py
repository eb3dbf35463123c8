"""Running an archived experiment again, from what lies in its archive."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assay.archive.code import code_agrees
from assay.archive.gather import OVERRIDES
from assay.archive.reading import ABOUT, CHECKSUMS, CODE, EXPERIMENT, About, Contents, contents
from assay.archive.reproduction import Circumstance, Reproduction, reproduction
from assay.archive.verify import checksums
from assay.archive.zipped import ArchiveError
from assay.comparison.run import read_experiment
from assay.config.schema import Experiment
from assay.data.store import MANIFEST, Manifest
from assay.records import sha256_file

FILE = "reproduction.json"
_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
_SHOWN = 6


@dataclass(frozen=True)
class Again:
    """How to run it."""

    archive: Path
    into: Path
    data: Path | None = None
    """Where the data lie here, of an experiment whose data are not in the archive and cannot be fetched."""
    cores: str = "all"
    options: Sequence[str] = field(default=())
    """More arguments for Snakemake."""


class NotReproduced(RuntimeError):
    """It could not be run to its end, or not on the same data."""


def reproduce(again: Again, tell: Callable[[str], None]) -> Reproduction:
    """Run the archive's experiment in `again.into` with the archive's code, and compare.

    Raises: ValueError for an archive that is damaged or data that are not named; NotReproduced.
    """
    with contents(again.archive, tolerant=True) as found:
        _refuse_damaged(found)
        experiment = read_experiment(found.results / "experiment.yaml")
        about = About.parse(
            found.root / ABOUT, "is missing: this is no archive of Assay's", "get the archive again"
        )
        problems, _ = code_agrees(found)
        for problem in problems[:_SHOWN]:
            tell(f"warning: {problem}")
        packages = list(unlike_lock(found.root / CODE / "requirements" / "run.txt"))
        for line in _told(packages):
            tell(line)
        _lay_out(found, experiment, again)
        results = again.into / "results" / experiment.name
        tell(
            f"running {experiment.name} again in {again.into}, with the code of Assay {about.assay} in the archive"
        )
        _run(again, experiment, f"results/{experiment.name}/data/{MANIFEST}")
        _refuse_other_data(found.results / "data" / MANIFEST, results / "data" / MANIFEST, again)
        _run(again, experiment)
        outcome = reproduction(
            experiment, found.results, results, sums=sha256_file(found.root / CHECKSUMS), packages=packages
        )
    outcome.write(again.into / FILE)
    return outcome


def _refuse_damaged(found: Contents) -> None:
    """Nothing of an archive is run that is not to the bit what was written: its files, and the zip around them."""
    if not found.is_archive:
        raise ArchiveError(
            f"{found.path}: is no archive: there is no code in it to run; name a NAME.crate.zip"
        )
    if problems := [*found.problems, *checksums(found.root)]:
        raise ArchiveError(
            f"{found.path}: {problems[0]}; nothing of it is run: see assay verify {found.path}"
        )


def unlike_lock(lock: Path) -> Iterator[Circumstance]:
    """Packages that are installed here in another version than the archive's lock names."""
    if not lock.is_file():
        return
    for name, version in _PINNED.findall(lock.read_text(encoding="utf-8")):
        try:
            here = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or not asked for here
        if here.partition("+")[0] != version.partition("+")[0]:
            yield Circumstance(what=f"lock {name.lower()}", archived=version, here=here)


def _told(packages: list[Circumstance]) -> Iterator[str]:
    if packages:
        names = [
            f"{one.what.removeprefix('lock ')} {one.archived} (here {one.here})" for one in packages[:_SHOWN]
        ]
        more = f" and {len(packages) - _SHOWN} more" if len(packages) > _SHOWN else ""
        yield (
            f"warning: this environment is not the archive's: {', '.join(names)}{more}; for the same one, install "
            "code/requirements/run.txt of the archive, or run it in its image: -- --sdm apptainer"
        )


def _lay_out(found: Contents, experiment: Experiment, again: Again) -> None:
    """A working folder: code, the user's modules, and the experiment with every default."""
    if again.into.exists() and (not again.into.is_dir() or any(again.into.iterdir())):
        raise ValueError(
            f"{again.into}: is there already; name a new folder: assay reproduce FILE --into FOLDER"
        )
    resolved = experiment.model_dump(mode="json")
    resolved["data"]["path"] = _data(experiment, found, again)
    resolved.pop("tracking", None)  # who runs it again sends nothing to its authors' server
    shutil.copytree(found.root / EXPERIMENT, again.into, dirs_exist_ok=True)
    shutil.copytree(found.root / CODE, again.into / CODE)
    (again.into / OVERRIDES).unlink(missing_ok=True)
    text = yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True)
    _file(again, experiment).write_text(text, encoding="utf-8")


def _data(experiment: Experiment, found: Contents, again: Again) -> str | None:
    if again.data is not None:
        if not again.data.is_dir():
            raise ValueError(f"{again.data}: is no folder; write --data FOLDER, the one that holds the data")
        return str(again.data.resolve())
    if experiment.data.path is not None and not experiment.data.download:
        raise ValueError(
            f"{found.path}: its data lay in '{experiment.data.path}' and are not in the archive; say where they are here: "
            f"assay reproduce {found.path} --data FOLDER"
        )
    return experiment.data.path


def _file(again: Again, experiment: Experiment) -> Path:
    return again.into / f"{experiment.name}.resolved.yaml"


def _run(again: Again, experiment: Experiment, *targets: str) -> None:
    """Snakemake, with the workflow and the package of the archive. Raises: NotReproduced."""
    code = again.into.resolve() / CODE
    command = [
        *(sys.executable, "-P", "-m", "snakemake", "--snakefile", str(code / "Snakefile")),
        *(
            "--configfile",
            _file(again, experiment).name,
            "--workflow-profile",
            str(code / "profiles" / "default"),
        ),
        *("--cores", again.cores, *again.options),
        *(("--", *targets) if targets else ()),
    ]
    environment = os.environ | {"PYTHONPATH": str(code / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.stdout.flush()
    status = subprocess.run(command, cwd=again.into, env=environment).returncode
    if status != 0:
        raise NotReproduced(
            f"{again.into}: the run ended with status {status}; what it did lies there, logs in logs/"
        )


def _refuse_other_data(archived: Path, here: Path, again: Again) -> None:
    """Trainings on other data reproduce nothing. Raises: NotReproduced."""
    if sha256_file(archived) == sha256_file(here):
        return
    one, other = (Manifest.read(path).model_dump(mode="json") for path in (archived, here))
    different = ", ".join(_differences(one, other)) or "its form"
    where = "" if again.data is None else f" in {again.data}"
    raise NotReproduced(
        f"the data{where} are not those of the archive: {different} differ; nothing was trained on them"
    )


def _differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Keys at which two manifests differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return [
            found for key in keys for found in _differences(one.get(key), other.get(key), f"{path}.{key}")
        ][:_SHOWN]
    return [path.removeprefix(".")]
