"""The shadow: sends copies of users' requests to the candidate, and throws its answers away.

    python -m assay.release.routing.shadower FOLDER

A process of its own, so that nothing the candidate does reaches a user. At most `CONCURRENT` copies are under way and `WAITING` wait;
what comes beyond is lost. What became of each is a line of `logs/shadow.jsonl`, of the same form as the front's.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from assay.records import write_atomically
from assay.release.layout import Layout
from assay.release.routing.copies import LOST, received, receiver
from assay.release.routing.lines import Lines
from assay.release.routing.plan import FrontError, check_address
from assay.release.routing.processes import command_line, ended, send, wait_for
from assay.release.routing.rotation import shift
from assay.release.routing.split import murmur2
from assay.release.routing.upstream import NoAnswer, Upstream, Versions

CONCURRENT = 8
WAITING = 256
WAITING_BYTES = 64 * 1024 * 1024
"""Of bodies that wait; a larger one waits alone."""
SECONDS = 5.0
"""Longest that a copy may take."""
LOG_BYTES, LOGS = 64 * 1024 * 1024, 4


@dataclass
class Counts:
    """Of the copies that came."""

    received: int = 0
    left_out: int = 0
    """Not in the share, or nobody to send them to."""
    lost: int = 0
    """Here: too many waited, or what came was no copy."""
    answered: int = 0
    failed: int = 0
    """No answer, or a status of 500 and above."""
    never_came: int = 0
    """Lost by the stable version's workers: the queue was full, or nobody there."""


class Shadower:
    """The process, for whoever starts and ends it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.shadow.parent.absolute()
        self._pid = self._folder / "shadow.pid"

    def running(self) -> int | None:
        try:
            pid = int(self._pid.read_text())
        except (OSError, ValueError):
            return None
        ours = str(self._layout.folder.absolute()) in command_line(pid) and "shadower" in command_line(pid)
        return pid if ours and not ended(pid) else None

    def ensure(self) -> int:
        """Have it run; its process id. Raises: FrontError."""
        if (pid := self.running()) is not None:
            return pid
        self._folder.mkdir(parents=True, exist_ok=True)
        self._layout.shadow_queue.unlink(missing_ok=True)
        source = str(Path(__file__).parents[3])
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        log_path = self._folder / "shadow.log"
        with log_path.open("a") as log:
            program = subprocess.Popen(
                [sys.executable, "-m", "assay.release.routing.shadower", str(self._layout.folder.absolute())],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        write_atomically(self._pid, f"{program.pid}\n".encode())
        if not wait_for(lambda: self._layout.shadow_queue.exists() or program.poll() is not None, 60.0):
            program.kill()
        if program.poll() is not None:
            raise FrontError(f"the shadow does not start; see {log_path}")
        return program.pid

    def stop(self) -> None:
        if (pid := self.running()) is not None:
            send(pid, signal.SIGTERM)
            if not wait_for(lambda: ended(pid), 10.0):
                send(pid, signal.SIGKILL)
        self._pid.unlink(missing_ok=True)

    def counts(self) -> Counts | None:
        """Since it started; None: not known."""
        try:
            return Counts(**json.loads((self._folder / "shadow-counts.json").read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


class Program:
    """What the process does."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.shadow.absolute()
        self._log = layout.shadow_log.absolute()
        self._socket = receiver(layout.shadow_queue.absolute())
        self._inode = layout.shadow_queue.stat().st_ino
        self._queue: asyncio.Queue[tuple[dict[str, str], bytes]] = asyncio.Queue(WAITING)
        self._bytes = 0
        self._versions = Versions()
        self._lines = Lines()
        self._seen: tuple[int, int] | None = None
        self._share, self._address = 0.0, ""
        self.counts = Counts()
        self._told: Counts | None = None

    async def run(self) -> None:
        """Until it is asked to end, or no copies come here any more."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        loop.add_reader(self._socket, self._receive)
        workers = [asyncio.create_task(self._work()) for _ in range(CONCURRENT)]
        while not over.is_set() and self._has_queue():
            self._tell()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.5)
        loop.remove_reader(self._socket)
        if self._has_queue():
            self._layout.shadow_queue.unlink(missing_ok=True)
        for worker in workers:
            worker.cancel()
        self._tell()

    def _has_queue(self) -> bool:
        """Whether copies come here: whoever started this process may have been killed before it could note which it is, and
        another one has the name then."""
        try:
            return self._layout.shadow_queue.stat().st_ino == self._inode
        except OSError:
            return False

    def _receive(self) -> None:
        """What has come, but not for so long that copies under way stand still."""
        for _ in range(32):
            try:
                headers, body = received(self._socket)
            except BlockingIOError:
                return
            except (ValueError, OSError):
                self.counts.received += 1
                self.counts.lost += 1
                continue
            self.counts.received += 1
            before = headers.pop(LOST, "")
            self.counts.never_came += int(before) if before.isdigit() else 0
            if not self._wanted(headers.get("x-request-id", "")):
                self.counts.left_out += 1
                continue
            if self._queue.full() or (self._bytes and self._bytes + len(body) > WAITING_BYTES):
                self.counts.lost += 1
                continue
            self._bytes += len(body)
            self._queue.put_nowait((headers, body))

    def _wanted(self, request_id: str) -> bool:
        """By the request's id, so that the same are chosen while the share grows."""
        return bool(self._address) and murmur2(request_id.encode()) < self._share * 2**32

    async def _work(self) -> None:
        while True:
            headers, body = await self._queue.get()
            self._bytes -= len(body)
            await self._send(headers, body)

    async def _send(self, headers: dict[str, str], body: bytes) -> None:
        address, share = self._address, self._share
        own = {
            "host": "assay",
            "x-assay-shadow": "1",
            "x-assay-assigned": "candidate",
            "x-assay-route": "shadow",
        }
        sent = [(name.encode(), value.encode("latin-1")) for name, value in (headers | own).items()]
        began = time.perf_counter()
        status, said = 502, False
        try:
            status, _, _ = await self._versions.ask(
                Upstream(address, "POST", b"/predict", sent, body), SECONDS
            )
            said = True
        except NoAnswer as error:
            status = error.status
        except ValueError:
            self.counts.lost += 1
            return
        seconds = f"{time.perf_counter() - began:.6f}"
        self.counts.answered += said
        self.counts.failed += not said or status >= 500
        self._lines.write(
            str(self._log),
            {
                "timestamp": round(time.time(), 6),
                "request_id": headers.get("x-request-id", ""),
                "user": headers.get("x-assay-user", ""),
                "assigned": "candidate",
                "route": "shadow",
                "status": status,
                "seconds": float(seconds),
                "share": share,
                "generation": 0,
                "stable": "",
                "candidate": address,
                "addresses": address,
                "statuses": str(status),
                "times": seconds,
                "headers": seconds if said else "-",
            },
        )

    def _tell(self) -> None:
        """Read what is wanted, and say what was done."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            at = self._path.stat()
            if self._seen != (at.st_ino, at.st_mtime_ns):
                wanted: dict[str, Any] = json.loads(self._path.read_bytes())
                address = str(wanted["address"] or "")
                if address:
                    check_address(address, "candidate")
                self._share, self._address = float(wanted["share"]), address
                self._seen = (at.st_ino, at.st_mtime_ns)
        shift(self._log, LOG_BYTES, LOGS)
        if self._told == self.counts:
            return
        self._told = replace(self.counts)
        with contextlib.suppress(OSError):
            counts = json.dumps(asdict(self.counts)).encode() + b"\n"
            write_atomically(self._path.with_name("shadow-counts.json"), counts)


def main() -> None:
    asyncio.run(Program(Layout(Path(sys.argv[1]))).run())


if __name__ == "__main__":
    main()
