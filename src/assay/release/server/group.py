"""One version's processes: gunicorn with workers that load the bundle themselves.

    python -m assay.release.server.group FOLDER DESCRIPTOR

FOLDER is a group's (`files.GroupFiles`); DESCRIPTOR is a listening socket that was inherited. The master imports neither torch
nor the bundle: a master that was warmed hangs its forks.
"""

import os
import sys
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication

from assay.release.server.files import GroupFiles, this_process, write_file
from assay.release.server.settings import Settings

KEEP_ALIVE_SECONDS = 75
"""Longer than nginx keeps an idle connection (60 s): who closes first must not be who is asked."""
HUNG_SECONDS = 180
"""Without a sign of life, in loading as in serving, after which gunicorn replaces a worker."""
BACKLOG = 2048
"""Connections that wait for a worker."""
_MEMORY = Path("/dev/shm")


class Group(BaseApplication):  # type: ignore[misc]
    """gunicorn's application; each worker makes its own of it."""

    def __init__(self, files: GroupFiles, settings: Settings, descriptor: int) -> None:
        self.files = files
        self.settings = settings
        self._descriptor = descriptor
        super().__init__()

    def load_config(self) -> None:
        values: dict[str, Any] = {
            "bind": f"fd://{self._descriptor}",
            "workers": self.settings.serving.workers,
            "worker_class": "assay.release.server.worker.GroupWorker",
            "keepalive": KEEP_ALIVE_SECONDS,
            "timeout": HUNG_SECONDS,
            "graceful_timeout": max(1, round(self.settings.serving.limits.timeout_seconds)),
            "control_socket_disable": True,
            "proc_name": f"assay-{self.settings.role}",
            "pre_fork": _choose_place,
            "child_exit": _forget,
        }
        if os.access(_MEMORY, os.W_OK):  # signs of life are not to wait for a disk
            values["worker_tmp_dir"] = str(_MEMORY)
        for key, value in values.items():
            self.cfg.set(key, value)

    def load(self) -> None:
        """Nothing: the worker loads."""


def _choose_place(server: Any, worker: Any) -> None:
    """The lowest number that no living worker has: it decides on which CPU cores it runs."""
    taken = {other.place for other in server.WORKERS.values()}
    worker.place = next(place for place in range(len(taken) + 1) if place not in taken)


def _forget(server: Any, worker: Any) -> None:
    files: GroupFiles = server.app.files
    for path in (files.worker(worker.pid), files.socket(worker.pid)):
        path.unlink(missing_ok=True)


def cores_of(cpus: list[int], workers: int, place: int) -> list[int]:
    """A worker's own cores, as many as every other has; all of them where there are fewer than workers."""
    each = len(cpus) // workers
    return cpus[place * each : (place + 1) * each] if each else cpus


def main(folder: Path, descriptor: int) -> None:
    files = GroupFiles(folder)
    settings = Settings.model_validate_json(files.settings.read_bytes())
    files.workers.mkdir(exist_ok=True)
    files.metrics.mkdir(exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(files.metrics)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(settings.serving.threads)
    os.environ.pop("GUNICORN_CMD_ARGS", None)
    write_file(files.group, this_process())
    Group(files, settings, descriptor).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
