"""Select the settings of an arm: the best of its trials on the validation split."""

import sys


def main(argv: list[str] | None = None) -> int:
    from assay.sweep.entry import Job, entry

    def act(job: Job) -> None:
        from assay.sweep.select import select

        select(job.experiment, job.arm, job.sweep, job.settings, job.output)

    return entry("select_settings", __doc__, argv, act)


if __name__ == "__main__":
    sys.exit(main())
