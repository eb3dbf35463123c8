# Jobs run in this image where Snakemake is told to use containers, else on the host.
from assay.image.running import arguments as image_arguments
from assay.image.running import confine, names_lock

if CONTAINED:
    names_lock(os.environ, IMAGE.lock)
    confine(os.environ)

    # Whoever only submits hands on the user's own arguments: what a node has, e.g. a GPU, is seen there.
    if RUNS_JOBS:
        workflow.deployment_settings.apptainer_args = image_arguments(
            workflow.deployment_settings.apptainer_args,
            [Path(workflow.basedir), IMAGE.folder.parent, *own_folders()],
        )

    container: str(IMAGE.sif)

    rule build_image:
        output:
            sif=IMAGE.sif,
            lock=IMAGE.lock,
        log:
            f"logs/image/{IMAGE.name}.log",
        container:
            False
        threads: ALL_CORES
        params:
            base=EXPERIMENT.image.chosen.reference,
        message:
            "Build the image that jobs run in"
        shell:
            "host_stage build_image --base {params.base:q} --root {IMAGE.folder.parent:q} > {log} 2>&1"
