"""Snakemake's terminal output for an experiment: what runs, how far, how long yet.

Dry runs, summaries and everything verbose keep Snakemake's own words.
"""

import re
import sys
from collections.abc import Callable
from logging import WARNING, LogRecord

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from snakemake_logger_plugin_assay.failures import ALREADY_TOLD, END, INTERRUPTED
from snakemake_logger_plugin_assay.progress import Progress

_OURS = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RUN_INFO,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.JOB_FINISHED,
    LogEvent.JOB_ERROR,
    LogEvent.PROGRESS,
    LogEvent.SHELLCMD,
    LogEvent.RULEGRAPH,
}


_IN_USE = re.compile(r"ExperimentInUse in file [^\n]*:\n([^\n]+)")
"""The user's doing: without the places in Assay's own code that Snakemake lists below it."""
_NOTHING_TO_DO = "Nothing to be done"

when_nothing_to_do: list[Callable[[], None]] = []
"""Called where Snakemake calls neither `onstart` nor `onsuccess`: everything was there already."""


class LogHandler(LogHandlerBase):
    """Draws progress on standard error; warnings and errors pass through above it."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        self._plain = settings.dryrun or settings.verbose or settings.printshellcmds or settings.debug_dag
        self._stream = sys.stdout if settings.stdout else sys.stderr
        self._progress = Progress(self._stream, color=not settings.nocolor)

    def emit(self, record: LogRecord) -> None:
        try:
            event = getattr(record, "event", None)
            if self._plain:
                self._progress.say(self.format(record))
            elif event in _OURS:
                self._progress.handle(str(event), record)
            elif record.getMessage().startswith(_NOTHING_TO_DO):
                self._progress.say("Nothing to do: all of it is there and up to date.")
                for call in when_nothing_to_do:
                    call()
            elif record.getMessage().startswith(INTERRUPTED):
                self._progress.failures.interrupted = True
            elif record.levelno >= WARNING:
                self._warn(self.format(record))
        except Exception:
            self.handleError(record)

    def _warn(self, text: str) -> None:
        """Snakemake's own words, but where a failed job has been told in fewer."""
        if END in text:
            self._progress.say(self._progress.failures.summary())
        elif in_use := _IN_USE.match(text):
            self._progress.say(in_use[1])
        elif not any(words in text for words in ALREADY_TOLD):
            self._progress.say(text)

    def close(self) -> None:
        self._progress.stop()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False

    @property
    def has_formatter(self) -> bool:
        return False

    @property
    def needs_rulegraph(self) -> bool:
        return False
