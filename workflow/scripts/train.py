"""Train one arm at one seed."""

import argparse
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", required=True, help="the resolved arm, as JSON")
    parser.add_argument("--manifest", type=Path, required=True, help="of the prepared data")
    parser.add_argument("--record", type=Path, required=True, help="to write; weights and log go beside it")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    parser.add_argument(
        "--telemetry", type=float, metavar="SECONDS", help="between two samples of the machine; without: none"
    )
    arguments = parser.parse_args(argv)

    from assay.config.schema import Arm
    from assay.training.run import Run, train

    run = Run(
        experiment=arguments.experiment,
        arm=arguments.arm,
        seed=arguments.seed,
        settings=Arm.model_validate_json(arguments.settings),
        data=arguments.manifest.parent,
        output=arguments.record.parent,
        checkpoint=arguments.record.parents[1] / "checkpoint",
        module_roots=arguments.module_root,
        telemetry=arguments.telemetry,
    )
    try:
        return train(run)
    except (ValueError, OSError) as error:
        print(f"train: {arguments.arm}, seed {arguments.seed}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from assay.forkserver import dispatch

    dispatch(__file__, main)
