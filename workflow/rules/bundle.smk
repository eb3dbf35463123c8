# What is released: asked for by name, e.g. `snakemake results/digits/bundle/cnn/bundle.json`.
rule bundle:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        f"{workflow.basedir}/requirements/serve.txt",
        experiment="results/{experiment}/experiment.yaml",
        comparison="results/{experiment}/comparison/comparison.json",
        evaluated=expand(
            "results/{{experiment}}/runs/{{arm}}/seed-{seed}/evaluate/predictions.parquet",
            seed=EXPERIMENT.seeds,
        ),
        weights=ancient(
            expand(
                "results/{{experiment}}/runs/{{arm}}/seed-{seed}/train/model.safetensors",
                seed=EXPERIMENT.seeds,
            )
        ),
    output:
        "results/{experiment}/bundle/{arm}/bundle.json",
    log:
        "logs/{experiment}/bundle/{arm}.log",
    threads: by_arm(lambda arm: arm.execution.threads)
    params:
        stage=by_arm(lambda arm: stage_params("bundle", module_root=module_roots(arm.model.source))),
        image=image_lock(),
    message:
        "Bundle {wildcards.arm} for release"
    shell:
        "stage bundle {params.stage[arguments]} {params.image} --results results/{wildcards.experiment} "
        "--arm {wildcards.arm} --output results/{wildcards.experiment}/bundle/{wildcards.arm} > {log} 2>&1"
