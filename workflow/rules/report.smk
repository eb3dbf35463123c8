rule report:
    input:
        needs_image(),
        trace_targets("results/{experiment}/trace/{arm}/record.json"),
        noise_floor(),
        sweep_files(),
        comparison="results/{experiment}/comparison/comparison.json",
        metrics="results/{experiment}/comparison/metrics.csv",
        contract="results/{experiment}/comparison/contract.json",
    output:
        "results/{experiment}/report/methods.md",
        "results/{experiment}/report/methods.tex",
        "results/{experiment}/report/report.tex",
        page=report(
            "results/{experiment}/report/index.html",
            caption="../report/report.rst",
            category="Verdict",
        ),
        tables=report(
            directory("results/{experiment}/report/tables"),
            patterns=["{name}.csv"],
            caption="../report/tables.rst",
            category="Tables",
        ),
        figures=report(
            directory("results/{experiment}/report/figures"),
            patterns=["{name}.svg"],
            caption="../report/figures.rst",
            category="Figures",
        ),
    log:
        "logs/{experiment}/report.log",
    threads: 1
    params:
        stage=stage_params("report"),
    message:
        "Write the report"
    shell:
        "stage report --results results/{wildcards.experiment} "
        "--output results/{wildcards.experiment}/report > {log} 2>&1"
