"""The programs that `assay monitor` starts: where they are, how they are called, and what goes missing without them."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import assay
from assay.monitoring.job import LEAST_SILENCE

_ADDRESS = "127.0.0.1"
_RETENTION = ("--storage.tsdb.retention.time=30d", "--storage.tsdb.retention.size=2GB")

NEEDS: dict[str, tuple[tuple[str, ...], str]] = {
    "exporter": ((), ""),
    "releases": ((), ""),
    "prometheus": (
        ("prometheus",),
        "no history, no rules, no alerts and no dashboard; `assay watch` and the exporter work without it",
    ),
    "alertmanager": (
        ("alertmanager", "prometheus-alertmanager"),
        "alerts stand on Prometheus's page and reach nobody",
    ),
    "grafana": (("grafana", "grafana-server"), "no dashboard; Prometheus's page draws any expression"),
}
"""By service: the names of its program, and what is not there without it."""
WITHOUT_PROMETHEUS = ("alertmanager", "grafana")
"""They have nothing to show or to send without it."""
READY = {
    "exporter": "/",
    "releases": "/",
    "prometheus": "/-/ready",
    "alertmanager": "/-/ready",
    "grafana": "/api/health",
}
RELEASES_JOB = "assay-release"
PORTS = {"exporter": 9910, "releases": 9911, "prometheus": 9090, "alertmanager": 9093, "grafana": 3000}


@dataclass(frozen=True)
class Plan:
    """What is to be started, and with what.

    state: folder of data, logs and rendered configuration; configuration: folder of templates.
    """

    results: Path
    state: Path
    configuration: Path
    address: str = _ADDRESS
    ports: dict[str, int] = field(default_factory=lambda: dict(PORTS))
    interval: float = 5.0
    silence: float = LEAST_SILENCE
    webhook: str | None = None
    releases: Path | None = None
    """Folder of gray releases; None: none are watched."""

    def at(self, service: str) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.ports[service]}"

    def url(self, service: str) -> str:
        return f"http://{self.at(service)}"

    def log(self, service: str) -> Path:
        return self.state / "logs" / f"{service}.log"


def find(service: str) -> Path | None:
    """The program of a service on the path; sbin included, which is not on every user's path."""
    search = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    for name in NEEDS[service][0]:
        if found := shutil.which(name, path=search):
            return Path(found).absolute()
    return None


def render(plan: Plan, services: list[str]) -> None:
    """Write the configuration of the services that are started, with addresses filled in, into the state's folder.

    Raises: ValueError naming the template that is missing or not what it must be.
    """
    target = plan.state / "configuration"
    shutil.rmtree(target, ignore_errors=True)
    if not (plan.configuration / "rules.yml").is_file():
        raise ValueError(
            f"{plan.configuration}: has no rules.yml; --configuration names Assay's monitoring/ folder or a copy"
        )
    shutil.copytree(plan.configuration, target)
    prometheus = _template(plan, "prometheus.yml")
    interval = f"{round(plan.interval * 1000)}ms"
    try:
        prometheus["global"] |= {"scrape_interval": interval, "evaluation_interval": interval}
        prometheus["scrape_configs"][0]["static_configs"][0]["targets"] = [plan.at("exporter")]
        prometheus["scrape_configs"] = [*_jobs(plan, prometheus["scrape_configs"])]
        if "alertmanager" in services:
            managers = prometheus["alerting"]["alertmanagers"]
            managers[0]["static_configs"][0]["targets"] = [plan.at("alertmanager")]
        else:
            prometheus.pop("alerting", None)
        alertmanager = _template(plan, "alertmanager.yml")
        if plan.webhook is not None:
            hooks = alertmanager["receivers"][0].setdefault("webhook_configs", [])
            hooks.append({"url": plan.webhook, "send_resolved": True})
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{plan.configuration}: prometheus.yml or alertmanager.yml lacks {error}: keep the first scrape job, "
            "the first Alertmanager and the first receiver of Assay's monitoring/ folder"
        ) from None
    _write(target / "prometheus.yml", prometheus)
    _write(target / "alertmanager.yml", alertmanager)


def _jobs(plan: Plan, jobs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without that of releases where none are watched: its alert would say that the exporter is down."""
    known = [job["job_name"] for job in jobs]
    if plan.releases is not None and RELEASES_JOB not in known:
        raise ValueError(
            f"{plan.configuration}: prometheus.yml has no job `{RELEASES_JOB}`: take it from Assay's monitoring/ folder, with release.yml"
        )
    for job in jobs:
        if job["job_name"] == RELEASES_JOB:
            if plan.releases is None:
                continue
            job["static_configs"][0]["targets"] = [plan.at("releases")]
        yield job


def _template(plan: Plan, name: str) -> dict[str, Any]:
    import yaml

    path = plan.configuration / name
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; name Assay's monitoring/ folder or a copy") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a configuration; start from the one in Assay's monitoring/ folder")
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    import yaml

    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def command(plan: Plan, service: str) -> tuple[list[str], dict[str, str]]:
    """How a service is started: its command line, and what its environment has besides this one's."""
    configuration, data = plan.state / "configuration", plan.state / "data" / service
    program = str(find(service))
    if service in ("exporter", "releases"):
        return _own(plan, service)
    if service == "prometheus":
        options = [f"--config.file={configuration / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
        return [program, *options, f"--web.listen-address={plan.at(service)}", *_RETENTION], {}
    if service == "alertmanager":
        options = [f"--config.file={configuration / 'alertmanager.yml'}", f"--storage.path={data}"]
        # Empty: no cluster. It would listen on all addresses, and refuses to start where there is no private one.
        return [
            program,
            *options,
            f"--web.listen-address={plan.at(service)}",
            "--cluster.listen-address=",
        ], {}
    return _grafana(plan, program, configuration / "grafana", data)


def _own(plan: Plan, service: str) -> tuple[list[str], dict[str, str]]:
    """An exporter, with the code that runs here."""
    source = str(Path(assay.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [source, os.environ.get("PYTHONPATH")]))
    words = [sys.executable, "-P", "-m", "assay.cli"]
    if service == "exporter":
        words += ["exporter", "--results", str(plan.results), "--silence", str(plan.silence)]
    else:
        words += ["release", "exporter", "--releases", str(plan.releases)]
    return [*words, "--address", plan.address, "--port", str(plan.ports[service])], {"PYTHONPATH": paths}


def _grafana(plan: Plan, program: str, configuration: Path, data: Path) -> tuple[list[str], dict[str, str]]:
    """Without accounts: everyone who reaches it may look, nobody may change anything."""
    environment = {
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_LOGS": str(data / "logs"),
        "GF_PATHS_PLUGINS": str(data / "plugins"),
        "GF_PATHS_PROVISIONING": str(configuration / "provisioning"),
        "GF_SERVER_HTTP_ADDR": plan.address,
        "GF_SERVER_HTTP_PORT": str(plan.ports["grafana"]),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
        "GF_AUTH_DISABLE_LOGIN_FORM": "true",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
        "GF_PLUGINS_PREINSTALL_DISABLED": "true",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(configuration / "dashboards" / "assay.json"),
        "ASSAY_PROMETHEUS_URL": plan.url("prometheus"),
        "ASSAY_SCRAPE_INTERVAL": f"{plan.interval:g}s",
        "ASSAY_DASHBOARDS": str(configuration / "dashboards"),
    }
    homes = [Path(program).resolve().parents[1], Path("/usr/share/grafana")]
    home = next((home for home in homes if (home / "conf" / "defaults.ini").exists()), homes[-1])
    words = [program, *(["server"] if Path(program).name == "grafana" else []), f"--homepath={home}"]
    return words, environment
