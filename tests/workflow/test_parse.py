"""What stops before anything runs."""

from copy import deepcopy

from project import TINY, Project

from assay.config.estimate import estimate
from assay.config.load import load


def test_the_check_counts_the_jobs_that_the_workflow_has(project: Project) -> None:
    estimated = estimate(load(project.folder / "tiny.yaml"), project.folder / "results")
    assert project.planned() == estimated.jobs


def refusal(project: Project) -> str:
    done = project.snakemake("--dry-run")
    assert done.returncode != 0
    assert not project.results.exists()
    return done.stdout + done.stderr


def test_undeclared_difference_stops_the_run(project: Project) -> None:
    experiment = deepcopy(TINY)
    experiment["arms"]["cnn"]["training"] = {"batch_size": 32}  # type: ignore[index]
    project.write(experiment)
    message = refusal(project)
    assert "training.batch_size" in message and "32" in message and "64" in message
    assert "Traceback" not in message


def test_misspelt_key_names_the_nearest(project: Project) -> None:
    project.write(deepcopy(TINY) | {"sedes": 3})
    message = refusal(project)
    assert "sedes" in message and "seeds" in message and "tiny.yaml" in message
    assert "Traceback" not in message


def test_missing_module_is_named(project: Project) -> None:
    experiment = deepcopy(TINY)
    experiment["arms"]["cnn"]["model"] = {"source": "nowhere:net"}  # type: ignore[index]
    project.write(experiment)
    message = refusal(project)
    assert "nowhere" in message and "Traceback" not in message


def test_two_experiment_files_are_refused(project: Project) -> None:
    (project.folder / "other.yaml").write_text("name: other\n")
    done = project.snakemake("--dry-run", "--configfile", "tiny.yaml", "other.yaml")
    assert done.returncode != 0
    assert "one experiment at a time" in done.stdout + done.stderr


def test_value_from_the_command_line_counts(project: Project) -> None:
    assert project.planned()["train"] == 4
    output = project.run("--dry-run", "--config", "seeds=3")
    assert "train" in output and " 6" in output
