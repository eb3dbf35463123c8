"""Train one arm at one seed."""

import argparse
import os
import sys
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    from assay.config.chosen import given_settings, goes_on
    from assay.isolation.supervisor import add_options, supervise

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--arm", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--settings", required=True, help="the resolved arm: JSON, or @FILE of a sweep")
    parser.add_argument("--manifest", type=Path, required=True, help="of the prepared data")
    parser.add_argument("--record", type=Path, required=True, help="to write; weights and log go beside it")
    parser.add_argument(
        "--module-root", type=Path, nargs="+", default=[Path()], help="where modules are sought"
    )
    parser.add_argument("--rank", action="store_true", help="be one process of a run on several devices")
    parser.add_argument("--until", type=int, metavar="EPOCHS", help="pause there; the next command goes on")
    parser.add_argument("--rung", metavar="FILE#TRIAL", help="where its sweep says whether the trial goes on")
    parser.add_argument(
        "--earlier",
        type=Path,
        metavar="RECORD",
        help="what it was there: that is the trial if it does not go on",
    )
    parser.add_argument(
        "--telemetry", type=float, metavar="SECONDS", help="between two samples of the machine; without: none"
    )
    add_options(parser)
    arguments = parser.parse_args(argv)
    try:
        settings = given_settings(arguments.settings)
        further = arguments.rung is None or goes_on(arguments.rung)
    except ValueError as error:
        print(f"train: {arguments.arm}: {error}", file=sys.stderr)
        return 1
    execution = settings.get("execution", {})
    # The ranks of a run are bounded with the process that starts them.
    crossing = (
        None if arguments.rank or not further else supervise(arguments, arguments.record.parent, execution)
    )

    from assay.config.arm import Arm
    from assay.training.folder import Run
    from assay.training.run import train

    run = Run(
        experiment=arguments.experiment,
        arm=arguments.arm,
        seed=arguments.seed,
        settings=Arm.model_validate(settings),
        data=arguments.manifest.parent,
        output=arguments.record.parent,
        checkpoint=arguments.record.parents[1] / "checkpoint",
        module_roots=arguments.module_root,
        until=arguments.until,
        telemetry=arguments.telemetry,
    )
    try:
        if arguments.earlier is not None and not arguments.rank:
            from assay.training.rungs import leave_stopped, take_up

            if not further:
                return leave_stopped(run, arguments.earlier)
            take_up(run, arguments.earlier)
        if crossing is not None:
            from assay.training.ending import leave_crossing

            return leave_crossing(run, crossing, first=os.environ.get("SLURM_NODEID", "0") == "0")
        if arguments.rank:
            from assay.training.worker import work

            work(run)
        if run.settings.execution.processes > 1:
            from assay.training.launch import launch

            command = [sys.executable, "-P", __file__, *(sys.argv[1:] if argv is None else argv), "--rank"]
            return launch(run, command)
        return train(run)
    except (ValueError, OSError) as error:
        print(f"train: {arguments.arm}, seed {arguments.seed}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from assay.forkserver import dispatch

    dispatch(__file__, main)
