"""What an arm shows against itself: the noise floor, from the records of both of its selves."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment-file", type=Path, required=True, help="the resolved experiment")
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    arguments = parser.parse_args(argv)

    from assay.comparison.floor import measure
    from assay.comparison.run import read_experiment

    try:
        measure(read_experiment(arguments.experiment_file), arguments.results).floor.write(arguments.output)
    except (ValueError, OSError) as error:
        print(f"find_noise_floor: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
