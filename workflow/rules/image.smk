# Jobs run in the image where Snakemake is told to use containers (--sdm apptainer), else on the host.
IMAGE = None

if CONTAINED:
    IMAGE = place(Recipe(EXPERIMENT.image.chosen))
    names_lock(os.environ, IMAGE.lock)
    confine(os.environ)
    workflow.deployment_settings.apptainer_args = image_arguments(
        workflow.deployment_settings.apptainer_args,
        [Path(workflow.basedir), IMAGE.folder.parent, *own_folders()],
    )

    container: str(IMAGE.sif)

    rule image:
        output:
            sif=IMAGE.sif,
            lock=IMAGE.lock,
        log:
            f"logs/image/{IMAGE.name}.log",
        container:
            False
        threads: workflow.cores or 1
        params:
            base=EXPERIMENT.image.chosen.reference,
        message:
            "Build the image {IMAGE.name}"
        shell:
            "stage build_image --base {params.base:q} --root {IMAGE.folder.parent:q} > {log} 2>&1"


def needs_image():
    """What every job in the image waits for. An image's name changes with its content, so its age means nothing."""
    return [] if IMAGE is None else [ancient(IMAGE.lock)]


def verify_image():
    """Before any job: an image that is there is the one that was built. Its file is read once, which takes seconds."""
    if IMAGE is not None and IMAGE.folder.exists():
        try:
            verify_file(IMAGE)
        except ValueError as error:
            raise WorkflowError(str(error)) from None
