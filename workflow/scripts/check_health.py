"""Check that this node can do what the experiment asks."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--device", required=True, help="what the arms ask for: auto, cpu or cuda")
    parser.add_argument("--record", type=Path, required=True, help="to write")
    arguments = parser.parse_args(argv)

    from assay.health.run import check_health

    try:
        findings = check_health(arguments.experiment, arguments.device, arguments.record.parent)
    except (ValueError, OSError) as error:
        print(f"check_health: {error}", file=sys.stderr)
        return 1
    print("\n".join(finding.text() for finding in findings))
    return 0


if __name__ == "__main__":
    from assay.forkserver import dispatch

    dispatch(__file__, main)
