# All that it packs is older than the report, or is the code of a stage before, which runs that anew.
rule archive:
    input:
        needs_image(),
        sorted({path for source in (*MODEL_SOURCES, EXPERIMENT.data.source) for path in user_sources(source)}),
        file=ancient(EXPERIMENT_FILE),
        experiment="results/{experiment}/experiment.yaml",
        comparison="results/{experiment}/comparison/comparison.json",
        page="results/{experiment}/report/index.html",
    output:
        "results/{experiment}/archive/{experiment}.crate.zip",
    log:
        "logs/{experiment}/archive.log",
    threads: 1
    params:
        stage=stage_params(
            "archive",
            overrides=OVERRIDES,
            module_root=module_roots(*MODEL_SOURCES, EXPERIMENT.data.source),
        ),
        image=image_files(),
    message:
        "Write the archive"
    shell:
        "stage archive {params.stage[arguments]} {params.image} --experiment-file {input.file:q} "
        "--results results/{wildcards.experiment} --logs logs/{wildcards.experiment} "
        "--output {output:q} > {log} 2>&1"
