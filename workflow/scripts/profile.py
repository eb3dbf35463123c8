"""Profile all arms of one block."""

import argparse
import json
import signal
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    from assay.isolation.supervisor import add_options, bounds_of

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--block", type=int, required=True)
    parser.add_argument(
        "--settings", required=True, help='{"arms": {NAME: arm or @FILE}, "profile": profile} as JSON'
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the block")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    parser.add_argument(
        "--telemetry", type=float, metavar="SECONDS", help="between two samples of the machine; without: none"
    )
    add_options(parser)
    arguments = parser.parse_args(argv)

    from assay.config.arm import Arm
    from assay.config.chosen import given_settings
    from assay.config.schema import Profile
    from assay.config.trials import costly
    from assay.profiling.block import profile_block
    from assay.session import end_with_session

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    end_with_session()
    settings = json.loads(arguments.settings)
    try:
        given = {
            name: costly(given_settings(arm)) if isinstance(arm, str) else arm
            for name, arm in settings["arms"].items()
        }
        profile_block(
            experiment=arguments.experiment,
            block=arguments.block,
            arms={name: Arm.model_validate(arm) for name, arm in given.items()},
            profile=Profile.model_validate(settings["profile"]),
            data=arguments.data,
            output=arguments.output,
            module_roots=arguments.module_root,
            bounds=bounds_of(arguments),
            telemetry=arguments.telemetry,
        )
    except (ValueError, OSError, MemoryError) as error:
        print(f"profile: block {arguments.block}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    # A fresh process on purpose: what is measured must not share one with anything.
    sys.exit(main())
