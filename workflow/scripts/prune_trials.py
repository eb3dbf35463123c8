"""Compare the trials of an arm after so many epochs, and say which go on."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--sweep", required=True, help="how the arm is tuned, as JSON")
    parser.add_argument("--settings", required=True, help="the arm as in the file, as JSON")
    parser.add_argument("--rung", type=int, required=True, help="from 0")
    parser.add_argument("--output", type=Path, required=True, help="folder of the arm's sweep")
    arguments = parser.parse_args(argv)

    from assay.config.arm import Arm
    from assay.config.sweep import Sweep
    from assay.sweep.rungs import prune

    try:
        sweep = Sweep.model_validate_json(arguments.sweep)
        settings = Arm.model_validate_json(arguments.settings)
        prune(arguments.experiment, arguments.arm, sweep, settings, arguments.output, arguments.rung)
    except (ValueError, OSError) as error:
        print(f"prune_trials: {arguments.arm}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
