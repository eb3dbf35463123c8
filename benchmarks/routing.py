"""What a change of the share costs users, and how soon a roll-back holds: the fronts under wrk, versions that answer at once.

    python benchmarks/routing.py [--front nginx|python] [--rounds 3] [--seconds 8] [--connections 16] [--pause 1]

Each round has a quiet stretch and one in which the share changes, in turns which comes first: a second after the front confirmed
the change before, which is a whole ramp in a stretch, or with `--pause 0` without end.
The table shows rates and p99 of both and their ratio, with failed requests; then roll-backs: from the moment that a share of 0
is asked for, when the last request arrived that went to the candidate, by the front's own log. Wants wrk, and nginx for it.
"""

import argparse
import hashlib
import hmac
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))

from assay.release.layout import Layout  # noqa: E402
from assay.release.routing.access import AccessReader  # noqa: E402
from assay.release.routing.front import Front  # noqa: E402
from assay.release.routing.gunicorn import PythonFront  # noqa: E402
from assay.release.routing.nginx import NginxFront  # noqa: E402
from assay.release.routing.plan import Plan  # noqa: E402
from assay.release.schema import Limits, Routing  # noqa: E402

SALT = "00112233445566778899aabbccddeeff"
SHARES = [0.0001, 0.01, 0.1, 0.5, 1.0, 0.5, 0.1, 0.01]
USERS = 1000
SCRIPT = """
local count = 0
request = function()
  count = count + 1
  return wrk.format("POST", "/predict", {["Authorization"] = "Bearer user" .. (count * 7919 % %d)}, "{}")
end
done = function(summary, latency)
  local e = summary.errors
  print(string.format("RESULT {\\"requests\\": %%d, \\"microseconds\\": %%d, \\"p99\\": %%f, \\"failed\\": %%d}",
    summary.requests, summary.duration, latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
"""


async def version(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """A version that answers at once."""
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await answered(send, [])


async def identity(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """An identity service that believes everyone."""
    if scope["type"] == "http":
        name = dict(scope["headers"])[b"authorization"].removeprefix(b"Bearer ")
        user = hmac.new(SALT.encode(), name, hashlib.sha256).hexdigest()[:32]
        await answered(send, [(b"x-assay-user", user.encode()), (b"x-accel-expires", b"600")])


async def answered(send: Any, headers: list[tuple[bytes, bytes]]) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2"), *headers]}
    await send(start)
    await send({"type": "http.response.body", "body": b"{}"})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(app: str) -> Iterator[str]:
    """The address of a server of this file's."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", f"routing:{app}", "--port", str(port), "--log-level", "error"]
    options = ["--lifespan", "off", "--no-access-log", "--loop", "uvloop", "--http", "httptools"]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY / 'src'}{os.pathsep}{REPOSITORY / 'benchmarks'}"}
    process = subprocess.Popen([*command, *options], env=environment)
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            if process.poll() is not None:
                sys.exit(f"{app} does not start")
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


class Bench:
    def __init__(
        self, front: Front, addresses: dict[str, str], script: Path, options: argparse.Namespace
    ) -> None:
        self.front, self.addresses, self.script, self.options = front, addresses, script, options
        self.generation = 0

    def hold(self, share: float) -> None:
        self.generation += 1
        self.front.start(Plan(self.generation, share, **self.addresses))

    def load(self, seconds: float) -> subprocess.Popen[str]:
        command = [
            "wrk",
            "-t",
            "1",
            "-c",
            str(self.options.connections),
            "-d",
            f"{seconds:g}s",
            "--timeout",
            "10s",
        ]
        url = f"http://127.0.0.1:{self.front.routing.port}/predict"
        return subprocess.Popen([*command, "-s", str(self.script), url], stdout=subprocess.PIPE, text=True)

    def result(self, process: subprocess.Popen[str]) -> dict[str, float]:
        said, _ = process.communicate()
        found = [line for line in said.splitlines() if line.startswith("RESULT ")]
        if not found:
            sys.exit(f"wrk says:\n{said}")
        result: dict[str, float] = json.loads(found[0].removeprefix("RESULT "))
        result["rate"] = result["requests"] / result["microseconds"] * 1e6
        return result

    def stretch(self, changing: bool) -> tuple[dict[str, float], int]:
        """wrk's result, and how often the share changed meanwhile."""
        self.hold(0.5)
        process, changes = self.load(self.options.seconds), 0
        over = time.monotonic() + self.options.seconds - 0.5
        time.sleep(0.5)
        while changing and time.monotonic() < over:
            self.hold(SHARES[changes % len(SHARES)])
            changes += 1
            time.sleep(min(self.options.pause, max(0.0, over - time.monotonic())))
        return self.result(process), changes

    def roll_back(self) -> tuple[float, float, int]:
        """Seconds to the last arrival at the candidate, seconds until the front had confirmed, failed requests."""
        self.hold(1.0)
        reader = AccessReader(self.front.layout.access)
        reader.skip()
        process = self.load(3)
        time.sleep(1.5)
        began = time.time()
        self.hold(0.0)
        confirmed = time.time() - began
        failed = int(self.result(process)["failed"])
        lines = reader.read()
        while more := reader.read():
            lines += more
        last = max(line.timestamp - line.seconds for line in lines if line.assigned == "candidate")
        return last - began, confirmed, failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--front", choices=["nginx", "python"], default="nginx")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--pause", type=float, default=1, help="seconds between two changes")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("install wrk")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = {name: stack.enter_context(served("version")) for name in ("stable", "candidate")}
        addresses["identity"] = stack.enter_context(served("identity"))
        layout = Layout(folder / "release")
        layout.folder.mkdir()
        layout.salt.write_text(SALT)
        layout.salt.chmod(0o600)
        (folder / "script.lua").write_text(SCRIPT.replace("%d", str(USERS), 1).replace("%%", "%"))
        kind = {"nginx": NginxFront, "python": PythonFront}[options.front]
        front = kind(layout, Routing(port=free_port()), Limits())
        stack.callback(front.stop, 5.0)
        report(Bench(front, addresses, folder / "script.lua", options), options)


def report(bench: Bench, options: argparse.Namespace) -> None:
    bench.hold(0.5)
    bench.result(bench.load(2))
    print(f"{options.front}, {options.connections} connections, {options.seconds:g} s a stretch")
    print("round  changes  quiet: req/s  p99 ms   changing: req/s  p99 ms   p99 ratio  failed")
    ratios, failed_in_all, changes_in_all = [], 0, 0
    for number in range(options.rounds):
        results: dict[bool, dict[str, float]] = {}
        changes = 0
        for changing in (False, True) if number % 2 == 0 else (True, False):
            results[changing], count = bench.stretch(changing)
            changes += count
        quiet, changed = results[False], results[True]
        failed = int(quiet["failed"] + changed["failed"])
        ratios.append(changed["p99"] / quiet["p99"])
        failed_in_all, changes_in_all = failed_in_all + failed, changes_in_all + changes
        print(
            f"{number + 1:5}  {changes:7}  {quiet['rate']:12.0f}  {quiet['p99'] / 1000:6.2f}   "
            f"{changed['rate']:15.0f}  {changed['p99'] / 1000:6.2f}   {ratios[-1]:9.2f}  {failed:6}"
        )
    print(
        f"median p99 ratio {median(ratios):.2f}; {failed_in_all} failed requests in {changes_in_all} changes"
    )
    for _ in range(options.rounds):
        last, confirmed, failed = bench.roll_back()
        print(
            f"roll-back: the last request to the candidate arrived {last * 1000:+.0f} ms after it was asked for; "
            f"confirmed after {confirmed * 1000:.0f} ms; {failed} failed requests"
        )


if __name__ == "__main__":
    main()
