"""Evaluate one trained arm at one seed on the test split."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    from assay.config.chosen import given_settings
    from assay.isolation.supervisor import add_options, supervise

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", required=True, help="the resolved arm: JSON, or @FILE of a sweep")
    parser.add_argument("--manifest", type=Path, required=True, help="of the prepared data")
    parser.add_argument(
        "--trained", type=Path, required=True, help="the training's record, beside the weights"
    )
    parser.add_argument("--record", type=Path, required=True, help="to write; predictions go beside it")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    add_options(parser)
    arguments = parser.parse_args(argv)
    try:
        settings = given_settings(arguments.settings)
    except ValueError as error:
        print(f"evaluate: {arguments.arm}: {error}", file=sys.stderr)
        return 1
    execution = settings.get("execution", {})
    crossing = supervise(arguments, arguments.record.parent, execution)

    from assay.config.arm import Arm
    from assay.evaluation.run import Run, evaluate

    run = Run(
        experiment=arguments.experiment,
        arm=arguments.arm,
        seed=arguments.seed,
        settings=Arm.model_validate(settings),
        data=arguments.manifest.parent,
        train=arguments.trained.parent,
        output=arguments.record.parent,
        module_roots=arguments.module_root,
    )
    try:
        evaluate(run, crossing)
    except (ValueError, OSError) as error:
        print(f"evaluate: {arguments.arm}, seed {arguments.seed}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from assay.forkserver import dispatch

    dispatch(__file__, main)
