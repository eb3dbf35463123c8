# Jobs run in this image where Snakemake is told to use containers, else on the host.
if CONTAINED:
    workflow.deployment_settings.apptainer_args = image_arguments(
        workflow.deployment_settings.apptainer_args,
        [Path(workflow.basedir), IMAGE.folder.parent, *own_folders()],
    )

    container: IMAGE_FILE

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
            python=sys.executable,
        message:
            "Build the image that jobs run in"
        shell:
            "{params.python:q} -P {SCRIPTS}/build_image.py --base {params.base:q} "
            "--root {IMAGE.folder.parent:q} > {log} 2>&1"
