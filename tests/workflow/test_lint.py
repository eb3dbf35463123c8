"""Snakemake's own linter has nothing to say but one thing that is known."""

import re

from project import Project

KNOWN = {"Specify a conda environment or container for each rule"}
"""The linter looks at the workflow as it runs on the host; with --sdm apptainer every rule has the image."""


def test_snakemake_lint(project: Project) -> None:
    done = project.snakemake("--lint")
    output = done.stdout + done.stderr
    assert "Lints for" in output or "Congratulations" in output, output
    found = set(re.findall(r"^ {4}\* (.+?)\.?:$", output, flags=re.MULTILINE))
    assert found <= KNOWN, found - KNOWN


def test_the_linter_sees_a_rule_without_a_log(project: Project) -> None:
    rules = project.folder / "workflow/rules/report.smk"
    text = rules.read_text()
    start, end = text.index("    log:"), text.index("    threads:")
    rules.write_text((text[:start] + text[end:]).replace(" > {log} 2>&1", ""))
    done = project.snakemake("--lint")
    assert "No log directive" in done.stdout + done.stderr
