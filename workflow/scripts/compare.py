"""Compare the arms of an experiment: statistics, contract and verdict from its records."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment-file", type=Path, required=True, help="the resolved experiment")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--output", type=Path, required=True, help="folder for the comparison's files")
    arguments = parser.parse_args(argv)

    from assay.comparison.run import compare

    try:
        compare(experiment_file=arguments.experiment_file, results=arguments.results, output=arguments.output)
    except (ValueError, OSError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
