# Apart from the profile, whose timings a profiler would touch; no number of the comparison comes from here.
rule trace:
    input:
        needs_image(),
        by_arm(lambda arm: user_sources(arm.model.source)),
        by_name(costly_selection),
        data="results/{experiment}/data/manifest.json",
    output:
        record="results/{experiment}/trace/{arm}/record.json",
    log:
        "logs/{experiment}/trace/{arm}.log",
    retries: RETRIES
    threads: by_arm(lambda arm: arm.execution.threads)
    resources:
        runtime=runtime("trace", "logs/{experiment}/trace/{arm}.log"),
        gpu=by_arm(lambda arm: min(1, gpus(arm))),
        mem_mb=memory_mb(by_arm(lambda arm: arm.execution.threads), "results/{experiment}/trace/{arm}"),
        processes=PROCESSES,
        at_memory_bound=AT_MEMORY_BOUND,
    params:
        stage=by_name(
            lambda name: stage_params(
                "trace",
                settings=costly_settings(name),
                batch_size=EXPERIMENT.profile.batch_sizes[-1],
                module_root=module_roots((EXPERIMENT.arms | REPEATED.arms)[name].model.source),
            )
        ),
    message:
        "Trace the kernels of {wildcards.arm}"
    shell:
        "stage trace --processes {resources.processes} --memory-mb {resources.mem_mb} "
        "--at-memory-bound {resources.at_memory_bound} "
        "--experiment {wildcards.experiment} --arm {wildcards.arm} "
        "{params.stage[arguments]} --data results/{wildcards.experiment}/data "
        "--output results/{wildcards.experiment}/trace/{wildcards.arm} > {log} 2>&1"
