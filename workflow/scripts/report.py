"""Write the report of an experiment: one page, its figures and its tables."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True, help="the experiment's folder of results")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    arguments = parser.parse_args(argv)

    from assay.reporting.run import report

    try:
        report(results=arguments.results, output=arguments.output)
    except (ValueError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
