"""The state of one block of the profile, from the files that its job writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from assay.monitoring.files import Moment, Signature, seconds_of, signature, stat_of
from assay.monitoring.job import Job, silence
from assay.monitoring.samples import Samples
from assay.monitoring.state import Block, State
from assay.monitoring.wording import span
from assay.records import Record, RecordError

VISITS = 2
"""Of each arm in a block: there and back."""
STARTS, GAPS = 10.0, 5.0
"""A visit is stalled when it has neither begun nor ended a measurement for so many times the least silence, and for so many
times the longest wait of this block so far."""
RECHECK_SECONDS = 10.0
_WORST: tuple[State, ...] = (
    "invalid",
    "failed",
    "out_of_memory",
    "diverged",
    "interrupted",
    "pruned",
    "completed",
)


class BlockFiles:
    """Reads one block.

    arms: those of the experiment; empty where they are not known.
    """

    def __init__(self, folder: Path, number: int, arms: Sequence[str]) -> None:
        self.folder, self.number, self.arms = folder, number, tuple(arms)
        self.job = Job(folder)
        self.samples = {arm: Samples(folder / arm / "telemetry.jsonl") for arm in arms}
        self.records_modified: float | None = None
        """When the last of its records was written; None where one is missing."""
        self._seen: dict[str, Signature] = {}
        self._records: dict[str, Record] = {}
        self._block: Block | None = None
        self._again = 0.0

    def look(self, moment: Moment, least_silence: float) -> Block:
        if self._block is not None and moment.monotonic < self._again:
            return self._block
        complete = self._read_records()
        block = self._ended() if complete else self._working(moment, least_silence)
        self._block = block if complete else None
        self._again = moment.monotonic + RECHECK_SECONDS
        return block

    def _read_records(self) -> bool:
        """Whether every arm has one that can be read."""
        modified = []
        for arm in self.arms:
            path = self.folder / arm / "record.json"
            stat = stat_of(path)
            if stat is None:
                self._seen.pop(arm, None)
                self._records.pop(arm, None)
                continue
            modified.append(stat.st_mtime)
            if signature(stat) != self._seen.get(arm):
                self._seen[arm] = signature(stat)
                self._records.pop(arm, None)
                try:
                    self._records[arm] = Record.read(path)
                except (RecordError, OSError):
                    continue
        complete = bool(self.arms) and len(self._records) == len(self.arms)
        self.records_modified = max(modified) if complete else None
        return complete

    def _ended(self) -> Block:
        arms: Mapping[str, State] = {arm: record.outcome for arm, record in self._records.items()}
        worst = min(arms.values(), key=_WORST.index)
        first = next(record for record in self._records.values() if record.outcome == worst)
        began = [seconds_of(record.started) for record in self._records.values()]
        ended = [seconds_of(record.finished) for record in self._records.values()]
        gates = first.details.get("gates", [])
        rejected = [gate["name"] for one in first.details.get("rejected", []) for gate in one]
        return Block(
            block=self.number,
            state=worst,
            why=first.message,
            host=first.environment.host,
            attempt=first.attempts,
            visits_done=sum(len(record.details.get("visits", [])) for record in self._records.values()),
            visits=VISITS * len(self.arms),
            arms=arms,
            tripped=tuple(gate["name"] for gate in gates if gate["status"] == "tripped"),
            rejected=tuple(dict.fromkeys(rejected)),
            last_event=max(record.finished for record in self._records.values()),
            seconds=max(filter(None, ended), default=0.0) - min(filter(None, began), default=0.0)
            if all(began) and all(ended)
            else None,
        )

    def _working(self, moment: Moment, least_silence: float) -> Block:
        self.job.look(moment)
        for samples in self.samples.values():
            samples.look(moment)
        state, why = self._state(moment, least_silence)
        if state == "waiting":
            return Block(self.number, visits=VISITS * len(self.arms) or None)
        newest = self._newest()
        done, attempt = self._progress()
        begun = self.job.started
        elapsed = moment.wall - begun if begun is not None and state == "running" else None
        visits = VISITS * len(self.arms)
        left = elapsed / done * (visits - done) if elapsed and elapsed > 0 and done and attempt == 1 else None
        return Block(
            block=self.number,
            state=state,
            why=why,
            host=self.job.host,
            attempt=attempt,
            visits_done=done,
            visits=visits or None,
            last_event=None if newest is None else newest.timestamp,
            silent_s=(self.job if newest is None else newest).pulse.age(moment),
            seconds_left=left,
        )

    def _newest(self) -> Samples | None:
        told = [samples for samples in self.samples.values() if samples.timestamp is not None]
        return max(told, key=lambda samples: samples.timestamp or "", default=None)

    def _progress(self) -> tuple[int | None, int | None]:
        """Visits that are done in the last attempt, and its number; None without telemetry.

        Visits go by their place in the order: those of an arm that has failed are passed over.
        """
        told = [samples for samples in self.samples.values() if samples.attempt is not None]
        if not told:
            return None, None
        attempt = max(samples.attempt or 0 for samples in told)
        ended = [visit for one in told if one.attempt == attempt for visit in one.visits_ended]
        return max(ended, default=-1) + 1, attempt

    def _state(self, moment: Moment, least_silence: float) -> tuple[State, str | None]:
        if (ending := self.job.ending()) is not None:
            return ending
        if self.job.attempt is None:
            return "waiting", None
        pulses = [self.job.pulse, *(samples.pulse for samples in self.samples.values())]
        alive = silence(pulses, moment)
        if alive is not None and alive > self.job.longest_silence(least_silence):
            return "killed", f"no sign of life for {span(alive)}"
        newest = self._newest()
        if newest is None or newest.last_mark is None or not newest.live(moment):
            return "running", None
        # Both are of the same node's clock.
        quiet = (seconds_of(newest.timestamp) or newest.last_mark) - newest.last_mark
        longest = max(one.longest_between_marks or 0.0 for one in self.samples.values())
        if quiet > max(STARTS * least_silence, GAPS * longest):
            return (
                "stalled",
                f"a measurement has taken {span(quiet)}; its process lives, CPU {_percent(newest)}",
            )
        return "running", None


def _percent(samples: Samples) -> str:
    return "not known" if samples.cpu_share is None else f"{samples.cpu_share:.0%}"
