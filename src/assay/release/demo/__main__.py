"""A release from end to end on this machine.

    make release-demo                          the candidate is as good, and is promoted
    make release-demo BAD=slow|errors|nan|drift    it is not, and is turned back

exit codes: 0 what was promised came true; 1 it did not; 2 it could not begin
"""

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

from assay.release.demo.models import Bad, bundles
from assay.release.demo.users import AUDIENCE, Plan, make_keys
from assay.release.layout import Layout
from assay.release.load import from_mapping
from assay.release.ports import free_port
from assay.release.ramp.journal import Journal, Line
from assay.release.ramp.start import Options, start, stop
from assay.release.registry.store import CHAMPION, open_registry
from assay.release.schema import Release
from assay.release.security.salt import make_salt


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bad", default="", choices=get_args(Bad), help="what is wrong with the candidate")
    parser.add_argument("--folder", type=Path, default=Path("releases/demo"), help="where everything lies")
    parser.add_argument(
        "--front", choices=["nginx", "python"], help="default: nginx where there is a new one"
    )
    parser.add_argument("--rate", type=float, default=80.0, help="requests a second")
    arguments = parser.parse_args(argv)
    try:
        return run(arguments.bad, arguments.folder.absolute(), arguments.front or _front(), arguments.rate)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def run(bad: Bad, work: Path, front: str, rate: float) -> int:
    """Raises: ValueError where it cannot begin."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    say(f"two models of handwritten digits; the candidate {_fault(bad)}")
    say("they are trained, compared and bundled first, unless an earlier demonstration has done so")
    stable, candidate = bundles(work, bad)
    _private, public = make_keys(work / "keys")
    content = release_file(bad, work, front, public, candidate)
    release = from_mapping(content, file="the demonstration")
    layout = Layout(Path(release.folder) / release.name)
    end_earlier(layout)
    registry = open_registry(release.registry)
    registry.move(CHAMPION, registry.register(stable), "the demonstration begins with it")
    make_salt(layout.salt)
    say(f"bundles are registered; the front is {front} on port {release.routing.port}")
    with users(release, layout, work, rate) as seen:
        try:
            state = start(release, Options(), say)
        finally:
            time.sleep(1)
        saw = seen()
    stop(layout)
    if bad == "drift":
        for text in drift_saw(Journal(layout).lines()):
            say(text)
    return _verdict(bad, state.phase, state.reason, saw, say)


def release_file(bad: Bad, work: Path, front: str, jwks: Path, candidate: Path) -> dict[str, Any]:
    """As a user would write it, with times that one can wait for."""
    step = {"least_seconds": 5, "most_seconds": 240}
    return {
        "name": f"demo-{bad or 'good'}",
        "folder": str(work / "releases"),
        "registry": {"model": "demo", "uri": str(work / "registry")},
        "versions": {"stable": "@champion", "candidate": str(candidate)},
        "serving": {
            "workers": 2,
            "jwt": {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": AUDIENCE},
            # A machine that stands still for some seconds is no fault of a version.
            "limits": {"timeout_seconds": 30},
        },
        "routing": {"front": front, "port": free_port()},
        "ramp": {
            "shadow": {"share": 1.0, "requests": 100, "least_seconds": 3, "most_seconds": 120},
            "steps": [
                {"share": 0.25, "users": 60, **step},
                {"share": 0.5, "users": 60, **step},
                {"share": 1.0, "users": 40, **step},
            ],
            "bake_seconds": 5,
        },
        "judge": {
            "level": 0.01,
            "error_margin": 0.15,
            "user_seconds": 3,
            "latency": {"quantile": 0.5, "margin": 1.5},
            "business": {"margin": 0.2},
        },
        "drift": {"window": 100, "action": "rollback" if bad == "drift" else "warn"},
    }


@contextlib.contextmanager
def users(release: Release, layout: Layout, work: Path, rate: float) -> Iterator[Any]:
    """They begin once the front answers, and go on until the end; gives what they saw so far, or at last."""
    layout.outcomes.parent.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        url=f"http://{release.routing.address}:{release.routing.port}",
        key=str(work / "keys" / "issuer.pem"),
        salt=str(layout.salt),
        outcomes=str(layout.outcomes),
        seen=str(work / "seen.json"),
        rate=rate,
    )
    file = work / "users.json"
    file.write_text(json.dumps(asdict(plan)))
    Path(plan.seen).unlink(missing_ok=True)
    waits = "import socket,sys,time\nwhile True:\n with socket.socket() as s:\n  if s.connect_ex((sys.argv[1], int(sys.argv[2])))==0: break\n time.sleep(0.1)\n"
    command = f'{sys.executable} -c "$WAITS" {release.routing.address} {release.routing.port} && exec {sys.executable} -P -m assay.release.demo.users {file}'
    with (work / "users.log").open("w") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdout=log,
            stderr=log,
            env=os.environ | {"WAITS": waits, "PYTHONPATH": _paths()},
            start_new_session=True,
        )

    def seen() -> dict[str, Any]:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(180)
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(Path(plan.seen).read_bytes())
            return found
        return {"requests": 0, "errors": None, "versions": {}, "worst": f"see {work / 'users.log'}"}

    try:
        yield seen
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def drift_saw(lines: Sequence[Line]) -> Iterator[str]:
    """What drift saw and when, and what turned the candidate back and when: one need not be the other."""
    begun = datetime.fromisoformat(lines[0].timestamp)

    def told(line: Line, before: Line) -> str:
        state = before.state
        where = state.phase if state.step is None else f"step {state.step + 1}"
        seconds = (datetime.fromisoformat(line.timestamp) - begun).total_seconds()
        return f"{seconds:.1f} s after the beginning, in {where}: {line.reason.removeprefix('drift: ')}"

    seen = backs = 0
    for before, line in pairwise(lines):
        if line.event == "warning" and line.reason.startswith("drift: "):
            seen += 1
            yield f"drift saw, {told(line, before)}"
        elif line.event == "rollback":
            backs += 1
            by = "drift" if line.reason.startswith("drift: ") else "the judge"
            seen += by == "drift"
            yield f"{by} turned it back, {told(line, before)}"
    if not seen:
        yield "drift saw nothing" + (" before it was turned back" if backs else "")


def _verdict(bad: Bad, phase: str, reason: str, saw: dict[str, Any], say: Any) -> int:
    promised = "rolled_back" if bad else "promoted"
    versions = ", ".join(f"{count} from {version}" for version, count in (saw["versions"] or {}).items())
    say(f"users asked {saw['requests']} times and saw {saw['errors']} errors; answers: {versions or 'none'}")
    say(f"the candidate was {phase.replace('_', ' ')}: {reason}")
    problems = []
    if phase != promised:
        problems.append(f"it should have been {promised.replace('_', ' ')}")
    if not saw["requests"] or saw["errors"] is None:
        problems.append(f"nobody asked: {saw['worst']}")
    elif saw["errors"]:
        problems.append(f"users saw errors, e.g. {saw['worst']}")
    if phase == "promoted" and len(saw["versions"] or {}) != 2:
        problems.append("users did not have both versions")
    for problem in problems:
        say(f"NOT AS PROMISED: {problem}")
    return 1 if problems else 0


def _fault(bad: Bad) -> str:
    return {
        "": "is as good as the other",
        "slow": "takes far longer",
        "errors": "fails on images that the test set does not have",
        "nan": "gives no numbers for images that the test set does not have",
        "drift": "was trained on wrong labels, which its own test set has too: it hardly ever answers an odd digit",
    }[bad]


def end_earlier(layout: Layout) -> None:
    """What an earlier demonstration left running or lying there."""
    if layout.journal.exists():
        stop(layout)
    shutil.rmtree(layout.folder, ignore_errors=True)


def _front() -> str:
    from assay.release.routing.nginx import find_nginx

    try:
        find_nginx()
    except ValueError as error:
        print(f"{error}\nthe front is Assay's own", flush=True)
        return "python"
    return "nginx"


def _paths() -> str:
    source = str(Path(__file__).parents[3])
    return os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))


if __name__ == "__main__":
    sys.exit(main())
