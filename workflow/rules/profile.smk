# A block takes all cores, so that nothing else of this workflow runs beside a measurement.
rule profile:
    input:
        every_model_source(),
        data="results/{experiment}/data/manifest.json",
    output:
        records=expand(
            "results/{{experiment}}/profile/block-{{block}}/{arm}/record.json", arm=EXPERIMENT.arms
        ),
    log:
        "logs/{experiment}/profile/block-{block}.log",
    retries: 1
    threads: workflow.cores or 1
    params:
        stage=stage_params("profile", profile_settings()),
        roots=module_roots(*(arm.model.source for arm in EXPERIMENT.arms.values())),
    message:
        "Profile all arms, block {wildcards.block}"
    shell:
        "stage profile --experiment {wildcards.experiment} --block {wildcards.block} "
        "--settings {params.stage[settings]:q} --data results/{wildcards.experiment}/data "
        "--output results/{wildcards.experiment}/profile/block-{wildcards.block} "
        "--module-root {params.roots:q} > {log} 2>&1"
