"""Propose the trials of one round of a Bayesian search, from those of the rounds before."""

import sys


def main(argv: list[str] | None = None) -> int:
    from assay.sweep.entry import Job, entry

    def act(job: Job) -> None:
        from assay.sweep.propose import propose

        propose(job.experiment, job.arm, job.sweep, job.settings, job.output, job.number)

    return entry("propose_trials", __doc__, argv, act, number="round")


if __name__ == "__main__":
    sys.exit(main())
