"""Assay: from one experiment file to a verdict. This file is the table of contents."""

from snakemake.utils import min_version

min_version("9.20")

if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/tuning.smk"
include: "workflow/rules/guards.smk"
include: "workflow/rules/execution.smk"
include: "workflow/rules/bounds.smk"
include: "workflow/rules/image.smk"
include: "workflow/rules/launch.smk"
include: "workflow/rules/cluster.smk"
include: "workflow/rules/health.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/sweep.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/profile.smk"
include: "workflow/rules/trace.smk"
include: "workflow/rules/noise.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/bundle.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/archive.smk"


rule all:
    default_target: True
    input:
        expand("results/{experiment}/report/index.html", experiment=EXPERIMENT.name),
        expand("results/{experiment}/archive/{experiment}.crate.zip", experiment=EXPERIMENT.name),
        lost_files(),


onstart:
    check_executor()
    verify_image()
    check_store()
    session.start(EXPERIMENT.name, fork_jobs=IMAGE is None and workflow.local_exec)


onsuccess:
    session.stop()
    print_verdict()
    track_results()


onerror:
    session.stop()
