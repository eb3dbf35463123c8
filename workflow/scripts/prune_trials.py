"""Compare the trials of an arm after so many epochs, and say which go on."""

import sys


def main(argv: list[str] | None = None) -> int:
    from assay.sweep.entry import Job, entry

    def act(job: Job) -> None:
        from assay.sweep.rungs import prune

        prune(job.experiment, job.arm, job.sweep, job.settings, job.output, job.number)

    return entry("prune_trials", __doc__, argv, act, number="rung")


if __name__ == "__main__":
    sys.exit(main())
