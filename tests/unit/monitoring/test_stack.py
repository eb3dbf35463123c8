"""`assay monitor`: starting and ending by own process ids, and what it says where something is missing or taken."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from leaderless import leaderless, wait_until_dead
from ports import free_port

from assay.cli import main
from assay.monitoring import programs, stack
from assay.monitoring.stack_command import TEMPLATES

ANSWERS = f"""#!{sys.executable}
import http.server, json, os, pathlib, signal, sys

class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

def serve(host, port):
    http.server.ThreadingHTTPServer((host, int(port)), Ready).serve_forever()
"""
GRAFANA = f"""{ANSWERS}
# Stands in for Grafana, which cannot be had where the tests run: tells how it was called.
settings = {{name: value for name, value in os.environ.items() if name.startswith(("GF_", "ASSAY_"))}}
pathlib.Path(os.environ["GF_PATHS_DATA"], "called.json").write_text(json.dumps([sys.argv[1:], settings]))
serve(os.environ["GF_SERVER_HTTP_ADDR"], os.environ["GF_SERVER_HTTP_PORT"])
"""
LISTEN = """
address = next(word for word in sys.argv if word.startswith("--web.listen-address")).partition("=")[2]
serve(*address.rsplit(":", 1))
"""
PROMETHEUS = ANSWERS + LISTEN
DEAF = f"{ANSWERS}\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{LISTEN}"


def free_ports() -> list[str]:
    return [f"--{name}-port={free_port()}" for name in programs.PORTS]


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A folder to work in, and a path on which none of the programs is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    real = shutil.which
    monkeypatch.setattr(
        programs.shutil, "which", lambda name, path: real(name, path=path.split(os.pathsep)[0])
    )
    yield tmp_path
    main(["monitor", "stop"])


def program(folder: Path, name: str, text: str) -> None:
    path = folder / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def started(folder: Path) -> dict[str, stack.Service]:
    return {service.name: service for service in stack.read(folder / "results" / ".monitor")}


def test_without_any_program_the_exporter_runs_and_the_rest_is_named(alone, capsys):
    assert main(["monitor", "start", *free_ports()]) == 0
    told = capsys.readouterr().out
    for name in ("prometheus", "alertmanager", "grafana"):
        assert f"note: {name} is not installed" in told
    assert "warning" not in told
    (service,) = started(alone).values()
    assert service.runs and service.url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(service.url + "/metrics", timeout=300) as answer:
        assert answer.status == 200
    assert main(["monitor", "status"]) == 0 and f"runs, process {service.process}" in capsys.readouterr().out
    assert main(["monitor", "start", *free_ports()]) == 2
    assert "exporter run already" in capsys.readouterr().err
    assert main(["monitor", "stop"]) == 0 and capsys.readouterr().out == "exporter ended\n"
    assert not service.runs
    assert main(["monitor", "stop"]) == 0 and "nothing ran" in capsys.readouterr().out
    assert main(["monitor", "status"]) == 1 and "nothing was started" in capsys.readouterr().out


def test_without_prometheus_nothing_is_started_that_needs_it(alone, capsys):
    program(alone, "alertmanager", "#!/bin/sh\nexit 1\n")
    program(alone, "grafana", GRAFANA)
    assert main(["monitor", "start", *free_ports()]) == 0
    told = capsys.readouterr().out
    assert "alertmanager is not started: it needs prometheus" in told
    assert "grafana is not started: it needs prometheus" in told
    assert set(started(alone)) == {"exporter"}


def test_a_program_that_ends_at_once_is_told_with_its_last_words_and_all_is_undone(alone, capsys):
    program(alone, "prometheus", "#!/bin/sh\necho 'no such flag: --web.listen-address'\nexit 2\n")
    assert main(["monitor", "start", *free_ports()]) == 1
    told = capsys.readouterr().err
    assert told.startswith("prometheus ended") and "no such flag" in told
    assert started(alone) == {}
    log = (alone / "results/.monitor/logs/exporter.log").read_text()
    assert "Traceback" not in log
    alive = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(alone).encode() in _read(path)]
    assert alive == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_grafana_is_called_with_what_it_needs(alone, capsys):
    program(alone, "prometheus", PROMETHEUS)
    program(alone, "grafana", GRAFANA)
    assert main(["monitor", "start", *free_ports(), "--interval", "2"]) == 0, capsys.readouterr().err
    words, settings = json.loads((alone / "results/.monitor/data/grafana/called.json").read_text())
    assert words[0] == "server" and words[1].startswith("--homepath=")
    configuration = alone / "results/.monitor/configuration/grafana"
    assert settings["GF_PATHS_PROVISIONING"] == str(configuration / "provisioning")
    assert Path(settings["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]).is_file()
    assert Path(settings["ASSAY_DASHBOARDS"]) == configuration / "dashboards"
    assert settings["ASSAY_PROMETHEUS_URL"] == started(alone)["prometheus"].url
    assert settings["ASSAY_SCRAPE_INTERVAL"] == "2s"
    for path in (configuration / "provisioning").rglob("*.yml"):
        named = {word.lstrip("$") for word in path.read_text().split() if word.startswith("$")}
        assert named and named <= set(settings), f"{path} names a variable that is not set"


def test_a_program_that_does_not_end_is_killed(alone, capsys, monkeypatch):
    monkeypatch.setattr(stack, "STOP_SECONDS", 0.5)
    program(alone, "prometheus", DEAF)
    assert main(["monitor", "start", *free_ports()]) == 0, capsys.readouterr().err
    service = started(alone)["prometheus"]
    assert main(["monitor", "stop"]) == 0
    assert not service.runs


def test_a_service_runs_until_the_last_of_its_threads_is_gone():
    with leaderless() as (_, process):
        assert stack._born(process) is not None
        os.kill(process, signal.SIGKILL)
        wait_until_dead(process)
        assert stack._born(process) is None


def test_a_process_of_the_same_number_is_not_taken_for_ours(alone, capsys):
    assert main(["monitor", "start", *free_ports()]) == 0
    service = started(alone)["exporter"]
    os.kill(service.process, signal.SIGKILL)
    end = time.monotonic() + 300
    while service.runs and time.monotonic() < end:
        time.sleep(0.02)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    state = alone / "results/.monitor/state.json"
    content = json.loads(state.read_text())
    content["services"][0]["process"] = other.pid
    state.write_text(json.dumps(content))
    capsys.readouterr()
    assert main(["monitor", "status"]) == 1 and "HAS ENDED" in capsys.readouterr().out
    assert main(["monitor", "stop"]) == 0
    assert other.poll() is None, "somebody else's process was ended"
    other.kill()
    other.wait()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "cannot be read"),
        ('{"host": "elsewhere", "services": [{}]}', "cannot be read"),
        (
            '{"host": "elsewhere", "services": [{"name": "exporter", "process": 1, "born": 1, "url": "", "log": ""}]}',
            "was started on elsewhere",
        ),
    ],
)
@pytest.mark.parametrize("action", ["start", "stop", "status"])
def test_a_state_that_is_damaged_or_anothers_is_refused(action, content, complaint, alone, capsys):
    state = alone / "results/.monitor/state.json"
    state.parent.mkdir(parents=True)
    state.write_text(content)
    assert main(["monitor", action]) == 2
    told = capsys.readouterr().err
    assert complaint in told and str(state) in told
    state.unlink()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--prometheus-port", "9910"], "a port of its own"),
        (["--configuration", "nowhere"], "has no rules.yml"),
        (["--results", "a-file"], "is no folder"),
        (["--state", "a-file/x"], "--state"),
        (["--address", "203.0.113.7"], "203.0.113.7"),
        (["--address", "no such name"], "--address"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(words, complaint, alone, capsys):
    Path("a-file").write_text("")
    assert main(["monitor", "start", *words]) == 2
    assert complaint in capsys.readouterr().err
    assert started(alone) == {}


@pytest.mark.parametrize(
    "word", ["--interval=0", "--interval=x", "--webhook=mail", "--exporter-port=0", "--silence=-1"]
)
def test_arguments_that_mean_nothing_are_refused(word, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["monitor", "start", word])
    assert ended.value.code == 2 and "write" in capsys.readouterr().err


def test_a_port_that_is_taken_is_named_with_its_option(alone, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["monitor", "start", "--exporter-port", str(taken.getsockname()[1])]) == 2
    assert "Address already in use; choose another with --exporter-port" in capsys.readouterr().err


def test_an_address_that_others_reach_is_warned_of(alone, capsys):
    assert main(["monitor", "start", "--address", "0.0.0.0", *free_ports()]) == 0
    assert "warning: whoever reaches 0.0.0.0 can read all of it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("prometheus.yml", "global: {}\n", "lacks 'scrape_configs'"),
        ("prometheus.yml", "a: [", "not YAML"),
        ("alertmanager.yml", "[]", "not a configuration"),
        ("alertmanager.yml", None, "No such file"),
    ],
)
def test_a_template_that_was_spoilt_is_named(file, content, complaint, alone, capsys):
    copy = alone / "mine"
    shutil.copytree(TEMPLATES, copy)
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    assert main(["monitor", "start", "--configuration", str(copy), *free_ports()]) == 2
    assert complaint in capsys.readouterr().err
    assert started(alone) == {}


def test_addresses_and_the_webhook_are_filled_in(tmp_path):
    ports = {"exporter": 1001, "prometheus": 1002, "alertmanager": 1003, "grafana": 1004}
    hook = "http://127.0.0.1:9/alerts"
    plan = programs.Plan(tmp_path, tmp_path / "s", TEMPLATES, "::1", ports, 2.5, webhook=hook)
    programs.render(plan, ["exporter", "prometheus", "alertmanager"])
    prometheus = yaml.safe_load((tmp_path / "s/configuration/prometheus.yml").read_text())
    assert prometheus["global"] == {"scrape_interval": "2500ms", "evaluation_interval": "2500ms"}
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": ["[::1]:1001"]}]
    assert prometheus["alerting"]["alertmanagers"][0]["static_configs"] == [{"targets": ["[::1]:1003"]}]
    alertmanager = yaml.safe_load((tmp_path / "s/configuration/alertmanager.yml").read_text())
    assert alertmanager["receivers"][0]["webhook_configs"] == [{"url": hook, "send_resolved": True}]
    programs.render(plan, ["exporter", "prometheus"])
    assert "alerting" not in yaml.safe_load((tmp_path / "s/configuration/prometheus.yml").read_text())


def test_the_templates_are_whole_without_assay_filling_them_in():
    prometheus = yaml.safe_load((TEMPLATES / "prometheus.yml").read_text())
    targets = [prometheus["scrape_configs"][0], prometheus["alerting"]["alertmanagers"][0]]
    told = [one["static_configs"][0]["targets"][0] for one in targets]
    assert told == [f"127.0.0.1:{programs.PORTS[name]}" for name in ("exporter", "alertmanager")]


def test_releases_are_scraped_where_they_are_watched_and_nowhere_else(tmp_path):
    def jobs(releases: Path | None, state: str) -> dict[str, list[str]]:
        plan = programs.Plan(tmp_path, tmp_path / state, TEMPLATES, releases=releases)
        programs.render(plan, ["exporter", "prometheus"])
        content = yaml.safe_load((tmp_path / state / "configuration" / "prometheus.yml").read_text())
        return {job["job_name"]: job["static_configs"][0]["targets"] for job in content["scrape_configs"]}

    assert set(jobs(None, "without")) == {"assay"}, "an exporter that is not meant to be there is not down"
    assert jobs(tmp_path, "with")["assay-release"] == ["127.0.0.1:9911"]
    plan = programs.Plan(tmp_path, tmp_path / "s", TEMPLATES, releases=tmp_path)
    words, _ = programs.command(plan, "releases")
    assert words[-7:] == ["exporter", "--releases", str(tmp_path), "--address", "127.0.0.1", "--port", "9911"]


def test_an_older_copy_of_the_configuration_says_what_it_lacks(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(TEMPLATES, copy)
    content = yaml.safe_load((copy / "prometheus.yml").read_text())
    content["scrape_configs"].pop()
    (copy / "prometheus.yml").write_text(yaml.safe_dump(content))
    programs.render(programs.Plan(tmp_path, tmp_path / "s", copy), ["exporter", "prometheus"])
    with pytest.raises(ValueError, match=r"no job `assay-release`: take it from"):
        programs.render(programs.Plan(tmp_path, tmp_path / "s", copy, releases=tmp_path), ["exporter"])
