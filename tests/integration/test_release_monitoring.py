"""A gray release watched for real: served versions behind nginx, Prometheus, Alertmanager and a webhook, started by `assay monitor`.

Versions, front, traffic and logs are real, and so is the controller; what it would start and change is in memory.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from alerting import MONITORING, Receiver, ask, expressions, get, hastened, wait_for
from fronted import Fronted
from ports import free_port
from test_routing import NEEDS_NGINX

from assay.holding import hold
from assay.release.ramp.controller import Controller
from assay.release.ramp.parts import Look
from assay.release.routing.nginx import NginxFront
from assay.release.server.files import Service, read_file
from assay.release.server.groups import open_group

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "release"))
from made_bundle import made_bundle, made_results
from made_world import NEW, OLD, World, controller, release, ticks

NEEDED = {"prometheus": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
MISSING = sorted(package for program, package in NEEDED.items() if shutil.which(program) is None)
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"install {' '.join(MISSING)}"),
    NEEDS_NGINX,
]
FACTOR = 10
BODY = json.dumps({"inputs": [[1.0] * 64]}).encode()
WELL = Look("wait", ("too few users",), users=42, requests=99, seconds_to_decide=30.0)
ASSAY = [sys.executable, "-P", "-m", "assay.cli"]
PATIENCE = 300.0


@dataclass
class Site:
    """One release, all that watches it, and users who ask without a pause."""

    fronted: Fronted
    world: World
    built: Controller
    receiver: Receiver
    ports: dict[str, int]
    serving: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    controlled: threading.Event = field(default_factory=threading.Event)
    statuses: list[int] = field(default_factory=list)
    monitoring: "Monitoring" = field(init=False)

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.ports['prometheus']}"

    def fired(self, name: str, **labels: str) -> None:
        wait_for(f"{name} {labels}", lambda: self.receiver.of(name, job="assay-release", **labels), PATIENCE)

    def names(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.receiver.alerts}

    def news(self) -> list[str]:
        """Names of alerts that came since the last time, of more than a second: what is over is forgotten."""
        time.sleep(2)
        came, self.receiver.alerts = self.receiver.alerts, []
        return [alert["labels"]["alertname"] for alert in came]

    def service(self, role: str) -> Service | None:
        service = read_file(self.world.layout.service(role) / "service.json", Service)
        return service if service is not None and service.active is not None else None

    def serve(self, role: str, bundle: Path) -> None:
        folder = self.world.layout.service(role)
        command = [
            *ASSAY,
            "release",
            "serve",
            str(bundle),
            "--folder",
            str(folder),
            "--role",
            role,
            "--port",
            "0",
        ]
        folder.mkdir(parents=True)
        with (folder / "output.log").open("ab") as output:
            self.serving.append(subprocess.Popen([*command, "--workers", "1"], stdout=output, stderr=output))
        wait_for(f"{role} serves", lambda: self.service(role), PATIENCE)

    def address(self, role: str) -> str:
        service = self.service(role)
        assert service is not None
        return f"127.0.0.1:{service.port}"

    def kill(self, role: str) -> None:
        """All of its processes."""
        self.serving[("stable", "candidate").index(role)].kill()
        for path in (self.world.layout.service(role) / "groups").glob("*"):
            group = open_group(path)
            for process in group.files.processes() if group is not None else ():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

    def ask(self) -> None:
        number = 0
        while not self.ended.wait(0.01):
            number += 1
            given = {"Authorization": f"Bearer user{number % 60}", "Content-Type": "application/json"}
            url = f"http://127.0.0.1:{self.fronted.routing.port}/predict"
            try:
                request = urllib.request.Request(url, data=BODY, headers=given)
                with urllib.request.urlopen(request, timeout=10) as answer:
                    self.statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                self.statuses.append(error.code)
            except OSError:
                continue

    def control(self) -> None:
        """While `controlled`: the lock is held as long as a controller lives."""
        while not self.ended.wait(0.2):
            if self.controlled.is_set():
                with hold(self.world.layout.lock):
                    while self.controlled.is_set() and not self.ended.wait(0.2):
                        ticks(self.world, self.built, most=1, seconds=0.2)


@dataclass
class Monitoring:
    """`assay monitor` of a site, with the rules' times shortened."""

    site: Site
    folder: Path

    def __post_init__(self) -> None:
        self.configuration = hastened(self.folder / "configuration", FACTOR)
        self.state = ["--results", str(self.folder / "results"), "--state", str(self.folder / "state")]

    def start(self) -> None:
        words = [f"--{name}-port={port}" for name, port in self.site.ports.items()]
        words += ["--configuration", str(self.configuration), "--webhook", self.site.receiver.url]
        words += ["--interval", "1", "--releases", str(self.site.world.folder.parent)]
        started = self._run("start", *self.state, *words)
        assert started.returncode == 0 and "releases " in started.stdout, started.stdout + started.stderr

    def stop(self) -> None:
        stopped = self._run("stop", *self.state)
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr

    def kill(self, *names: str) -> None:
        """Those services, and wait until they are gone."""
        services = {
            one["name"]: one for one in json.loads((self.folder / "state/state.json").read_text())["services"]
        }
        for name in names:
            os.kill(services[name]["process"], signal.SIGKILL)
        for name in names:
            wait_for(f"{name} is gone", lambda name=name: refuses(services[name]["url"]), PATIENCE)

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [*ASSAY, "monitor", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=self.folder)


def refuses(url: str) -> bool:
    try:
        get(url)
    except urllib.error.HTTPError:
        return False
    except OSError:
        return True
    return False


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    results = made_results(tmp_path / "made", seeds=1)
    bundles = {"stable": made_bundle(results, "mlp"), "candidate": made_bundle(results, "wide")}
    ports = {name: free_port() for name in ("exporter", "releases", "prometheus", "alertmanager", "grafana")}
    (tmp_path / "releases").mkdir()
    with Fronted(tmp_path / "releases", NginxFront) as fronted, Receiver() as receiver:
        world = World(fronted.layout.folder)
        made = release()
        settings = made.model_dump(mode="json")
        settings["routing"] |= {"port": fronted.routing.port, "address": "127.0.0.1"}
        world.layout.resolved.write_text(yaml.safe_dump(settings))
        built = controller(world, made)
        built.begin(OLD, NEW, "a test")
        while built.state.wanted.share < 0.5:
            ticks(world, built, most=1)
        world.look = lambda state: WELL
        site = Site(fronted, world, built, receiver, ports)
        threads = [threading.Thread(target=target) for target in (site.ask, site.control)]
        try:
            for role, bundle in bundles.items():
                site.serve(role, bundle)
            addresses = {role: site.address(role) for role in bundles}
            fronted.front.start(fronted.plan(0.5, **addresses))
            site.controlled.set()
            for thread in threads:
                thread.start()
            site.monitoring = Monitoring(site, tmp_path)
            site.monitoring.start()
            try:
                yield site
            finally:
                site.monitoring.stop()
        finally:
            site.ended.set()
            for role in bundles:
                site.kill(role)
            for process in site.serving:
                process.wait(PATIENCE)


def rules_of(site: Site) -> list[dict[str, str]]:
    groups = json.loads(get(f"{site.prometheus}/api/v1/rules"))["data"]["groups"]
    return [rule for group in groups if group["name"] == "assay-release" for rule in group["rules"]]


def test_all_that_goes_wrong_reaches_the_webhook_and_what_is_well_does_not(site: Site) -> None:
    wait_for(
        "users of both versions",
        lambda: len(ask(site.prometheus, 'assay_release_requests_total{outcome="ok"} > 20')) == 2,
        PATIENCE,
    )
    asked = expressions(MONITORING / "grafana" / "dashboards" / "release.json")
    assert len(asked) > 25
    for expression in asked:
        if "ALERTS" not in expression:
            wait_for(f"data for {expression}", lambda text=expression: ask(site.prometheus, text), PATIENCE)
    written = yaml.safe_load((MONITORING / "release.yml").read_text())["groups"][0]["rules"]
    wait_for(
        "rules are evaluated", lambda: [rule["health"] for rule in rules_of(site)] == ["ok"] * len(written)
    )
    (share,) = wait_for("the share", lambda: ask(site.prometheus, "assay_release_front_share_ratio"))
    assert float(share["value"][1]) == 0.5
    # In a tenth of its time an alert can mean no more than a machine that was busy with other things: then it goes again.
    wait_for("all is well", lambda: not ask(site.prometheus, "ALERTS") and not site.news(), PATIENCE)

    site.world.look = lambda state: Look(
        "wait", ("drift is told once",), users=42, warnings=("drift: mean moved",)
    )
    site.fired("AssayDrift", release="release")
    site.world.look = lambda state: Look("wait", ("sample ratio: 400 of 500 have the candidate",), users=42)
    site.fired("AssaySplitWrong")
    site.controlled.clear()
    site.fired("AssayControllerDown")
    site.world.look = lambda state: Look("go_on", pause="the candidate drifts", users=99)
    site.controlled.set()
    site.fired("AssayReleaseHeld")
    for expression in asked:
        wait_for(
            f"data for {expression}",
            lambda text=expression: "ALERTS" not in text or ask(site.prometheus, text),
        )

    site.kill("candidate")
    site.fired("AssayCandidateErrors", role="candidate")
    site.fired("AssayVersionNotReady", role="candidate")
    assert set(site.statuses) == {200}, "users had their answers from the stable version"
    assert "AssayUserErrors" not in site.names()
    site.world.look = lambda state: Look("rollback", ("the candidate is down",))
    site.fired("AssayReleaseRolledBack")
    site.kill("stable")
    site.fired("AssayUserErrors")
    site.fired("AssayVersionNotReady", role="stable")
    site.fronted.front.stop(5)
    site.fired("AssayFrontDown")
    site.monitoring.kill("releases")
    site.fired("AssayReleaseExporterDown")


def test_prometheus_and_alertmanager_may_be_killed_under_load(site: Site) -> None:
    """Users and the ramp do not notice; what was scraped before is there afterwards, and an alert of meanwhile comes."""
    answered = 'assay_release_requests_total{outcome="ok"}'
    wait_for("users of both versions", lambda: len(ask(site.prometheus, f"{answered} > 20")) == 2, PATIENCE)
    before = time.time()
    site.monitoring.kill("prometheus", "alertmanager")
    seen = len(site.statuses)
    site.world.look = lambda state: Look("go_on", pause="the candidate drifts", users=99)
    wait_for("the ramp is held", lambda: site.built.state.held, PATIENCE)
    wait_for("users go on", lambda: len(site.statuses) > seen + 100, PATIENCE)
    assert "AssayReleaseHeld" not in site.names(), "who would have told it was dead"
    site.monitoring.stop()
    site.monitoring.start()
    site.fired("AssayReleaseHeld")
    assert len(ask(site.prometheus, f"{answered} @ {before:.3f}")) == 2, "what was scraped before is lost"
    assert set(site.statuses) == {200}
