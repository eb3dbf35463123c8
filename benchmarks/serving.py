"""What a served prediction costs, against servers that do less and servers that people take.

    python tools/setup.py --environment /tmp/peers --requirements requirements/serving-peers.txt
    python benchmarks/serving.py [--peers /tmp/peers] [--rounds 3] [--seconds 3] [--networks cnn mlp]

Two workers each, one thread a worker, the same weights, the same request body: a CNN of 94,762 parameters that is sent 3,072
numbers, and an MLP of 4,810 that is sent 64. `Starlette + orjson` is asked directly and does nothing but parse and predict; the same
behind an nginx that only passes on shows what any front costs. Assay is behind its nginx with the token verified by the front and by
the version, every number checked, a JSON line for every request in both, and metrics. Servers take turns in every round; ratios are
those of one round, told as median and range. Everything runs on one machine, wrk too: read the ratios.
"""

import argparse
import contextlib
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "served"), str(HERE.parent / "src")]

import networks  # noqa: E402
import servers  # noqa: E402
from servers import Assay, Target  # noqa: E402

CONNECTIONS = (1, 8, 64)
BARE, ASSAY = "Starlette + orjson", "Assay"
TOGETHER = "Assay, who waits together"
"""`batching: {size: 8, wait_ms: 0}`: requests that are there at the same time share a forward pass, and none waits for others."""
AIMS = {"cnn": (0.9, 4.0), "mlp": (0.8, 7.0)}
"""Least ratio of requests a second to the bare server, and to LitServe and BentoML."""
P99_AIM = 1.5


class Load(NamedTuple):
    """What wrk saw: requests a second, and the 99th percentile of latency in milliseconds."""

    rate: float
    p99: float


Results = dict[tuple[str, int], list[Load]]


def load(target: Target, connections: int, seconds: int, folder: Path) -> Load:
    """Raises: SystemExit where any request failed: a server that refuses is fast."""
    body = folder / f"{target.name}.body".replace(" ", "-")
    body.write_bytes(target.body)
    script = body.with_suffix(".lua")
    headers = "".join(f'wrk.headers["{name}"] = "{value}"\n' for name, value in target.headers.items())
    script.write_text(
        f'wrk.method = "POST"\n{headers}local file = io.open("{body}", "rb")\nwrk.body = file:read("*a")\nfile:close()\n'
    )
    words = [servers.find_wrk(), "-t", "1", "-c", str(connections), "-d", f"{seconds}s", "--latency"]
    url = f"http://127.0.0.1:{target.port}/predict"
    done = subprocess.run(
        [*words, "--timeout", "30s", "-s", str(script), url], capture_output=True, text=True, check=True
    )
    return read_wrk(done.stdout, target.name)


def read_wrk(text: str, name: str) -> Load:
    """From what wrk prints. Raises: SystemExit where any request failed."""
    for line in text.splitlines():
        if "Non-2xx" in line or "Socket errors" in line:
            raise SystemExit(f"{name}: requests failed, so nothing is compared: {line.strip()}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    tail = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if rate is None or tail is None or not float(rate[1]):
        raise SystemExit(f"{name}: wrk saw no request:\n{text}")
    return Load(float(rate[1]), float(tail[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[tail[2]])


def forward(kind: str, seconds: float) -> float:
    """Forward passes a second of two processes that do nothing else."""
    command = [sys.executable, "forward.py", kind, str(seconds)]
    options = {"cwd": HERE / "served", "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **options) for _ in range(servers.WORKERS)]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in processes)


def measure(kind: str, options: argparse.Namespace, folder: Path) -> tuple[Results, list[float], list[str]]:
    """Loads by server and connections, forward passes a second by round, and what was left out and why."""
    body, raw, expected = servers.bodies(kind)
    bundle = networks.bundle(kind, folder / "bundle")
    results: Results = {}
    forwards: list[float] = []
    left_out = []
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(Assay(folder / "plain", bundle))
        together = stack.enter_context(Assay(folder / "together", bundle, batch=8, wait_ms=0.0))
        batched = stack.enter_context(Assay(folder / "batched", bundle, batch=32))
        bare = servers.bare(folder, kind, body)
        targets = [
            bare,
            servers.behind_nginx(folder, bare),
            plain.target(ASSAY, body),
            plain.target("Assay, without nginx", body, direct=True),
            plain.target("Assay, raw tensors", raw, servers.RAW),
            together.target(TOGETHER, body),
            batched.target("Assay, batches of 32", body),
            batched.target("Assay, raw and batches", raw, servers.RAW),
        ]
        for module, start in (("litserve", servers.litserve), ("bentoml", servers.bentoml)):
            python, why = servers.peer(options.peers, module)
            if python is None:
                left_out.append(f"{module}: {why}")
            else:
                targets.append(start(folder, kind, body, python))
        for target in targets:
            for end in target.ends:
                stack.callback(end)
        for target in targets:
            servers.until_it_answers(target, expected)
            load(target, 8, 1, folder)
        for turn in range(options.rounds):
            forwards.append(forward(kind, options.seconds))
            for connections in CONNECTIONS:
                for target in targets if turn % 2 == 0 else reversed(targets):
                    found = load(target, connections, options.seconds, folder)
                    results.setdefault((target.name, connections), []).append(found)
    return results, forwards, left_out


def ratios(results: Results, of: str, to: str, connections: int, what: str = "rate") -> list[float] | None:
    """Round by round; None where one of them was left out."""
    if (of, connections) not in results or (to, connections) not in results:
        return None
    pairs = zip(results[of, connections], results[to, connections], strict=True)
    return [getattr(a, what) / getattr(b, what) for a, b in pairs]


def told(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def lines(kind: str, results: Results, forwards: list[float]) -> list[str]:
    """A table, and what became of the aims."""
    text = [
        f"{kind.upper()}: bare forward in {servers.WORKERS} processes {median(forwards):,.0f}/s",
        "",
        "| server | connections | requests/s | to bare | p99 ms | to bare |",
        "|---|---|---|---|---|---|",
    ]
    for (name, connections), found in sorted(results.items(), key=lambda item: item[0][1]):
        rate, tail = (ratios(results, name, BARE, connections, what) for what in ("rate", "p99"))
        assert rate is not None and tail is not None
        rates, tails = median(one.rate for one in found), median(one.p99 for one in found)
        text.append(f"| {name} | {connections} | {rates:,.0f} | {told(rate)} | {tails:.2f} | {told(tail)} |")
    least, peers = AIMS[kind]
    text.append("")
    aims = [(BARE, connections, "rate", least) for connections in CONNECTIONS]
    aims += [(BARE, connections, "p99", P99_AIM) for connections in CONNECTIONS[1:]]
    aims += [
        (peer, connections, "rate", peers) for peer in ("LitServe", "BentoML") for connections in CONNECTIONS
    ]
    for own, (other, connections, what, aim) in product((ASSAY, TOGETHER), aims):
        found = ratios(results, own, other, connections, what)
        if found is not None:
            reached = median(found) <= aim if what == "p99" else median(found) >= aim
            word = "at most" if what == "p99" else "at least"
            text.append(
                f"{own} to {other}, {connections} connections, {'p99' if what == 'p99' else 'requests/s'}: {told(found)}; "
                f"aim {word} {aim:g}: {'reached' if reached else 'missed'}"
            )
    return text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=Path, help="environment of requirements/serving-peers.txt")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each load")
    parser.add_argument("--networks", nargs="+", choices=list(networks.KINDS), default=list(networks.KINDS))
    options = parser.parse_args()
    servers.find_wrk()
    for kind in options.networks:
        with tempfile.TemporaryDirectory(prefix="assay-serving-") as name:
            results, forwards, left_out = measure(kind, options, Path(name))
        print("\n".join(lines(kind, results, forwards)))
        for why in left_out:
            print(f"left out: {why}")
        print(flush=True)


if __name__ == "__main__":
    main()
