"""What is looked at before any job runs, and what is shown after the last."""

from assay.image.verify import verify_file
from snakemake_logger_plugin_assay import when_nothing_to_do


def verify_image():
    """Before any job: an image that is there is the one that was built. Its file is read once, which takes seconds."""
    if IMAGE is not None and IMAGE.folder.exists():
        try:
            verify_file(IMAGE)
        except ValueError as error:
            raise WorkflowError(str(error)) from None


def check_store():
    """Before any job: a store that is damaged would cost every training that is run on it anew."""
    store = Path("results") / EXPERIMENT.name / "data"
    if (store / "manifest.json").exists():
        from assay.data.store import open_store

        try:
            open_store(store)
        except ValueError as error:
            raise WorkflowError(
                f"{error}; first with {store}/manifest.json as its only target: data that come out the same rerun nothing"
            ) from None


def lost_files():
    """Of an experiment that has its report: what is not there any more. Snakemake looks behind no file that is."""
    results = f"results/{EXPERIMENT.name}"
    if not os.path.exists(f"{results}/report/index.html"):
        return []
    kept = [
        "data/manifest.json",
        "comparison/comparison.json",
        "comparison/metrics.csv",
        "comparison/contract.json",
        "experiment.yaml",
    ]
    run = [
        "train/record.json",
        "train/model.safetensors",
        "evaluate/record.json",
        "evaluate/predictions.parquet",
    ]
    made = [f"{results}/{file}" for file in kept]
    made += [
        path
        for file in run
        for path in run_targets(f"results/{{experiment}}/runs/{{arm}}/seed-{{seed}}/{file}")
    ]
    made += profile_targets("results/{experiment}/profile/block-{block}/{arm}/record.json")
    made += trace_targets("results/{experiment}/trace/{arm}/record.json")
    made += [*sweep_files(), *(path for arm in SWEPT for path in trial_records(arm))]
    made += [path for arm in SWEPT for rung in range(len(RUNGS)) for path in rung_records(arm, rung)]
    if EXPERIMENT.noise.enabled:
        made += [*noise_floor(), *noise_records()]
    return [path for path in made if not os.path.exists(path)]


def print_verdict():
    """At the end of a run that was to end with a report or a noise floor, also where nothing was left to do."""
    from assay.comparison.terminal import show, show_noise

    rules = {job.rule.name for job in workflow.dag.jobs}
    if "report" in rules:
        show(Path("results") / EXPERIMENT.name)
    elif "find_noise_floor" in rules and "compare" not in rules:
        show_noise(Path("results") / EXPERIMENT.name)


def track_results():
    """At the end, from this machine and with its environment: jobs may have no network and know no credentials."""
    from assay.tracking.command import at_end

    if EXPERIMENT.tracking.mlflow is not None and any(job.rule.name == "report" for job in workflow.dag.jobs):
        if problem := at_end(Path("results") / EXPERIMENT.name):
            logger.warning(problem)


when_nothing_to_do += [print_verdict, track_results]
