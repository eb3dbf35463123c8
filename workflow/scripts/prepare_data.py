"""Prepare the data set of an experiment: a memory-mapped store and its manifest."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    from assay.isolation.supervisor import add_options, supervise

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", required=True, help="the section `data`, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="folder of the store")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    add_options(parser)
    arguments = parser.parse_args(argv)
    if supervise(arguments, arguments.output, {"device": "cpu"}) is not None:
        return 1  # what was crossed has been said: there is no arm whose result it could be

    from assay.config.schema import Data
    from assay.data.prepare import prepare

    settings = Data.model_validate_json(arguments.settings)
    try:
        prepare(settings, arguments.output, module_roots=arguments.module_root)
    except (ValueError, OSError) as error:
        print(f"prepare_data: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
