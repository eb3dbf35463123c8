"""Trace the kernels of one arm: inference, and a training step."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    from assay.config.chosen import given_settings
    from assay.isolation.supervisor import add_options, supervise

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--settings", required=True, help="the resolved arm: JSON, or @FILE of a sweep")
    parser.add_argument("--batch-size", type=int, required=True, help="of inference")
    parser.add_argument("--data", type=Path, required=True, help="folder of the prepared data")
    parser.add_argument("--output", type=Path, required=True, help="folder for the traces and their record")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    add_options(parser)
    arguments = parser.parse_args(argv)
    try:
        settings = given_settings(arguments.settings)
    except ValueError as error:
        print(f"trace: {arguments.arm}: {error}", file=sys.stderr)
        return 1
    execution = settings.get("execution", {})
    crossing = supervise(arguments, arguments.output, execution)

    from assay.config.arm import Arm
    from assay.config.trials import costly
    from assay.tracing.run import Run, trace

    run = Run(
        experiment=arguments.experiment,
        arm=arguments.arm,
        settings=Arm.model_validate(costly(settings)),
        batch_size=arguments.batch_size,
        data=arguments.data,
        output=arguments.output,
        module_roots=arguments.module_root,
    )
    try:
        trace(run, crossing)
    except (ValueError, OSError) as error:
        print(f"trace: {arguments.arm}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from assay.forkserver import dispatch

    dispatch(__file__, main)
