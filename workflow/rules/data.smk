rule prepare_data:
    input:
        user_sources(EXPERIMENT.data.source),
    output:
        manifest="results/{experiment}/data/manifest.json",
    log:
        "logs/{experiment}/prepare_data.log",
    retries: 1
    threads: 1
    params:
        stage=stage_params("data", canonical_json(EXPERIMENT.data.model_dump(mode="json"))),
    message:
        "Prepare the data of {wildcards.experiment}"
    shell:
        "{PYTHON} {SCRIPTS}/prepare_data.py --settings {params.stage[settings]:q} "
        "--output results/{wildcards.experiment}/data --module-root {MODULE_ROOTS:q} > {log} 2>&1"
