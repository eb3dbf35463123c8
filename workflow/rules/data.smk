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
        roots=module_roots(EXPERIMENT.data.source),
    message:
        "Prepare the data of {wildcards.experiment}"
    shell:
        "stage prepare_data --settings {params.stage[settings]:q} "
        "--output results/{wildcards.experiment}/data --module-root {params.roots:q} > {log} 2>&1"
