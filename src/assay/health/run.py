"""The stage: all checks on the node that it runs on, and their record."""

import os
from pathlib import Path

from assay.environment import IMAGE_LOCK, IN_IMAGE, capture, code, select_device
from assay.health.checks import Finding, Node, all_findings
from assay.records import Record, now


class Unhealthy(ValueError):
    """A node that cannot do what the experiment asks."""


def check_health(experiment: str, device: str, output: Path) -> list[Finding]:
    """Check this node and leave `record.json`.

    device: what the arms ask for: `cuda` if any of them does, else `auto` or `cpu`.
    Raises: Unhealthy with every finding, and no record, if a check fails.
    """
    started = now()
    output.mkdir(parents=True, exist_ok=True)
    lock = os.environ.get(IMAGE_LOCK) if IN_IMAGE.exists() else None
    node = Node(select_device(device), output, Path(lock) if lock else None)
    findings = all_findings(node)
    text = "\n".join(finding.text() for finding in findings)
    if any(finding.ok is False for finding in findings):
        raise Unhealthy(f"this node does not do:\n{text}")
    Record(
        stage="health",
        experiment=experiment,
        outcome="completed",
        started=started,
        finished=now(),
        spec={"device": device},
        code=code("health"),
        environment=capture(threads=None, device=node.device),
        details={"checks": {finding.check: finding.found for finding in findings}},
    ).write(output / "record.json")
    return findings
