"""What the tests of the monitoring share: a receiver of alerts, and questions to Prometheus."""

import json
import re
import shutil
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from ports import free_port

__all__ = ["free_port"]

T = TypeVar("T")
MONITORING = Path(__file__).parents[2] / "monitoring"


class Receiver:
    """A webhook: a real HTTP server that keeps what Alertmanager sends."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.alerts += body["alerts"]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the tests' output is theirs."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/alerts"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, name: str, status: str = "firing", **labels: str) -> list[dict[str, Any]]:
        return [
            alert
            for alert in self.alerts
            if alert["status"] == status
            and alert["labels"]["alertname"] == name
            and labels.items() <= alert["labels"].items()
        ]


def get(url: str, **parameters: str) -> Any:
    query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
    with urllib.request.urlopen(url + query, timeout=60) as answer:
        return answer.read()


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The instant vector of an expression: label sets and values."""
    answer = json.loads(get(f"{prometheus}/api/v1/query", query=expression))
    assert answer["status"] == "success", answer
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def wait_for(what: str, found: Callable[[], T], seconds: float = 180.0) -> T:
    """The first truthy answer."""
    end = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)
    return answer


def hastened(folder: Path, factor: int) -> Path:
    """A copy of monitoring/ in which every time of the rules and of Alertmanager's rhythm is a `factor`th."""
    shutil.copytree(MONITORING, folder)
    seconds = {"": 1, "s": 1, "m": 60, "h": 3600}

    def shorter(match: "re.Match[str]") -> str:
        number, unit = match.groups()
        return f"{max(1, int(number) * seconds[unit] // factor)}{unit and 's'}"

    for name in ("rules.yml", "release.yml"):
        rules = (folder / name).read_text()
        rules, changes = re.subn(r"(?:(?<=\[)|(?<=for: )|(?<=} > ))(\d+)([smh]?)\b", shorter, rules)
        assert changes >= 10, "the rules' times are written otherwise"
        (folder / name).write_text(rules)
    alertmanager = yaml.safe_load((folder / "alertmanager.yml").read_text())
    alertmanager["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(alertmanager))
    return folder


def expressions(dashboard: Path) -> list[str]:
    """All of a dashboard, annotations too, with its variables at `All`."""
    content = json.loads(dashboard.read_text())
    found = [target["expr"] for panel in content["panels"] for target in panel.get("targets", [])]
    found += [one["expr"] for one in content["annotations"]["list"]]
    variables = [variable["name"] for variable in content["templating"]["list"]]
    for name in variables:
        found = [text.replace(f"${name}", ".*") for text in found]
    return [text.replace("$__rate_interval", "5s") for text in found]
