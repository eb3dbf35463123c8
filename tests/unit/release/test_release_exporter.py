"""Releases as Prometheus metrics: what files and versions say, and what they do not."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ed25519
from made_access import line
from made_world import NEW, OLD, World, controller, release, ticks
from ports import free_port
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from test_log import served
from tokens_made import public_jwk, write_keys

from assay.holding import hold
from assay.release.exporter import metrics
from assay.release.exporter.metrics import METRICS, Collector, kind_of
from assay.release.exporter.traffic import BUCKETS
from assay.release.layout import Layout
from assay.release.ramp.journal import line as journal_line
from assay.release.ramp.parts import Look
from assay.release.ramp.status import Standing
from assay.release.schema import Serving
from assay.release.security import sources
from assay.release.security.salt import make_salt
from assay.release.server.files import Service, this_process, write_file
from assay.release.server.metrics import Metrics
from assay.release.server.plugs import load_plugs
from assay.release.server.settings import Settings

Told = dict[tuple[str, ...], float]
HELD = Look(
    "wait",
    ("sample ratio: 400 of 500 compared users have the candidate",),
    users=12,
    warnings=("drift: mean",),
)


def told_by(collector: Collector) -> Told:
    """Values by name and labels, as Prometheus would read them: each once."""
    registry = CollectorRegistry()
    registry.register(collector)
    found: Told = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            key = (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items())))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A release in its first step, which was not yet decided."""
    world = World(tmp_path / "releases" / "digits")
    built = controller(world)
    built.begin(OLD, NEW, "a test")
    while built.state.phase != "step":
        ticks(world, built, most=1)
    world.look = lambda state: HELD
    ticks(world, built, most=10)
    settings = release().model_dump(mode="json")
    settings["routing"] |= {"port": free_port(), "address": "127.0.0.1"}
    world.layout.resolved.write_text(yaml.safe_dump(settings))
    return world


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there answers on a busy machine, too: only what is not there gives no answer."""
    monkeypatch.setattr(metrics, "ANSWER_SECONDS", 60.0)


@pytest.fixture
def version() -> Iterator[ThreadingHTTPServer]:
    """A version's own metrics over real HTTP; it is not ready."""
    made = Metrics("digits", "abc", "stable")
    made.count("ok", 0.003, 0.001, 2)
    made.count_lines("dropped", 3)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/metrics" else 503)
            self.end_headers()
            self.wfile.write(made.text())

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is theirs."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_where_a_release_stands(world: World) -> None:
    told = told_by(Collector(world.folder.parent))
    own = "release=digits"
    assert told["assay_release_phase", "phase=step", own] == 1
    assert told["assay_release_share_ratio", own] == 0.01
    assert told["assay_release_over", own] == told["assay_release_held", own] == 0
    assert told["assay_release_split_wrong", own] == 1
    assert told["assay_release_warnings", "kind=drift", own] == 1
    assert told["assay_release_warnings", "kind=other", own] == 0
    assert told["assay_release_events_total", "event=step", own] == 1
    assert told["assay_release_front_up", own] == 0, "nothing listens"
    assert told["assay_release_version_ready", own, "role=stable"] == 0, "no supervisor was ever there"
    assert told["assay_release_exporter_releases",] == 1
    names = {key[0] for key in told}
    assert "assay_release_candidate_users" not in names, "nobody looks: what was seen last is no news"
    held = hold(world.layout.lock)
    told = told_by(Collector(world.folder.parent))
    held.close()
    assert told["assay_release_controller_up", own] == 1 and told["assay_release_candidate_users", own] == 12
    assert told["assay_release_disk_full", own] == 0


def test_a_controller_without_room_and_a_halted_front_are_told(world: World) -> None:
    own = "release=digits"
    world.layout.room.unlink()
    (world.layout.front / "active").mkdir(parents=True)
    assert ("assay_release_disk_full", own) not in told_by(Collector(world.folder.parent)), "nobody says so"
    with hold(world.layout.lock):
        told = told_by(Collector(world.folder.parent))
    assert told["assay_release_disk_full", own] == 1
    assert told["assay_release_front_share_ratio", own] == 0 < told["assay_release_share_ratio", own]


def test_what_users_had_is_counted_from_the_first_look_on(world: World) -> None:
    log = world.layout.access
    log.parent.mkdir()
    log.write_bytes(line())
    collector = Collector(world.folder.parent)
    own = ("release=digits", "role=candidate")
    requests, attempts = "assay_release_requests_total", "assay_release_attempts_total"
    assert told_by(collector)[requests, "outcome=ok", *own] == 0, "what was there before is history"
    bad: dict[str, object] = {
        "assigned": "stable",
        "status": 503,
        "addresses": "127.0.0.1:1",
        "statuses": "503",
        "times": "9",
        "headers": "9",
    }
    refused = bad | {"status": 422, "statuses": "422", "seconds": 99.0}
    with log.open("ab") as file:
        file.writelines([line(), line(), line(**bad), line(**refused)])
        file.write(b'{"timestamp":1')
    told = told_by(collector)
    assert told[requests, "outcome=ok", *own] == 2 and told[requests, "outcome=failed", *own] == 0
    assert told[attempts, "outcome=failed", *own] == 2, "though the users had good answers"
    assert told[requests, "outcome=failed", "release=digits", "role=stable"] == 1
    assert told[requests, "outcome=refused", "release=digits", "role=stable"] == 1
    assert told["assay_release_seconds_bucket", "le=0.128", *own] == 0
    assert told["assay_release_seconds_bucket", "le=0.256", *own] == 2
    assert told["assay_release_seconds_bucket", "le=+Inf", "release=digits", "role=stable"] == 2
    assert told["assay_release_seconds_bucket", f"le={BUCKETS[-1]}", "release=digits", "role=stable"] == 1
    assert told["assay_release_seconds_sum", *own] == 0.5


@pytest.mark.usefixtures("site_proxy")
def test_a_version_s_own_metrics_are_passed_on(world: World, version: ThreadingHTTPServer) -> None:
    folder = world.layout.service("stable")
    folder.mkdir(parents=True)
    write_file(
        folder / "service.json",
        Service(process=this_process(), address="127.0.0.1", port=version.server_port, role="stable"),
    )
    told = told_by(Collector(world.folder.parent))
    own = ("release=digits", "role=stable")
    assert told["assay_serving_requests_total", "code=ok", *own] == 1
    assert told["assay_serving_log_lines_total", "outcome=dropped", *own] == 3
    assert told["assay_serving_seconds_count", *own] == 1
    assert told["assay_release_version_ready", *own] == 0, "it answers, and says that it is not"


def test_a_port_that_speaks_something_else_is_a_version_that_is_not_ready(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]

        def speak() -> None:
            made, _ = other.accept()
            made.sendall(b"220 mail\r\n")
            made.close()

        speaking = threading.Thread(target=speak)
        speaking.start()
        world.layout.service("stable").mkdir(parents=True)
        service = Service(process=this_process(), address="127.0.0.1", port=port, role="stable")
        write_file(world.layout.service("stable") / "service.json", service)
        told = told_by(Collector(world.folder.parent))
        speaking.join()
    assert told["assay_release_version_ready", "release=digits", "role=stable"] == 0
    assert told["assay_release_exporter_errors",] == 0


def test_one_damaged_release_silences_no_other(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    broken = world.folder.parent / "broken"
    broken.mkdir()
    (broken / "journal.jsonl").write_text("{\n{\n")
    collector = Collector(world.folder.parent)
    for _ in range(2):
        told = told_by(collector)
        assert told["assay_release_exporter_errors",] == 1
        assert told["assay_release_phase", "phase=step", "release=digits"] == 1
    assert capsys.readouterr().err.count(f"{broken}: cannot be read") == 1, "said once, not at every scrape"


def test_what_is_over_for_a_day_is_told_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.look = lambda state: Look("rollback", ("errors",))
    built = controller(world)
    assert built.resume()
    ticks(world, built)
    told = told_by(Collector(world.folder.parent))
    assert told["assay_release_phase", "phase=rolled_back", "release=digits"] == 1
    assert told["assay_release_split_wrong", "release=digits"] == 0
    assert "assay_release_front_up" not in {key[0] for key in told}, "what was ended on purpose is not down"
    service = Service(process=this_process(), address="127.0.0.1", port=free_port(), role="stable")
    world.layout.service("stable").mkdir(parents=True)
    write_file(world.layout.service("stable") / "service.json", service)
    told = told_by(Collector(world.folder.parent))
    assert told["assay_release_front_up", "release=digits"] == 0
    assert told["assay_release_version_ready", "release=digits", "role=stable"] == 0
    assert not [key for key in told if key[0] == "assay_release_version_ready" and "role=candidate" in key]
    monkeypatch.setattr(metrics, "RECENT_SECONDS", -1.0)
    assert told_by(Collector(world.folder.parent))["assay_release_exporter_releases",] == 0


def test_what_became_of_copies_is_told_where_it_is_known(world: World) -> None:
    assert not [key for key in told_by(Collector(world.folder.parent)) if "copies" in key[0]]
    folder = world.folder / "run"
    folder.mkdir(exist_ok=True)
    counts = {"received": 9, "left_out": 1, "lost": 2, "answered": 3, "failed": 3, "never_came": 4}
    (folder / "shadow-counts.json").write_text(json.dumps(counts))
    told = told_by(Collector(world.folder.parent))
    own = {key[1:]: value for key, value in told.items() if key[0] == "assay_release_copies_total"}
    expected = {
        f"outcome={outcome}": float(count) for outcome, count in counts.items() if outcome != "received"
    }
    assert {
        label: value for labels, value in own.items() for label in labels if "outcome" in label
    } == expected
    assert Standing(Layout(world.folder)).as_dict()["copies"] == counts


def test_what_another_release_serves_is_told_of_that_one(world: World) -> None:
    world.look = lambda state: Look("rollback", ("errors",))
    built = controller(world)
    assert built.resume()
    over = ticks(world, built)
    service = Service(process=this_process(), address="127.0.0.1", port=free_port(), role="stable")
    world.layout.service("stable").mkdir(parents=True)
    write_file(world.layout.service("stable") / "service.json", service)
    assert told_by(Collector(world.folder.parent))["assay_release_front_up", "release=digits"] == 0
    handed = over.model_copy(update={"successor": "next"})
    built.journal.append(journal_line(built.number + 1, "handing_over", "a test", "release next", handed))
    names = {key[0] for key in told_by(Collector(world.folder.parent))}
    assert not names & {"assay_release_front_up", "assay_release_version_ready"}


def test_no_folder_of_releases_is_no_error(tmp_path: Path) -> None:
    assert told_by(Collector(tmp_path / "none"))["assay_release_exporter_releases",] == 0


def test_names_and_labels_are_those_that_are_declared(world: World) -> None:
    for key in told_by(Collector(world.folder.parent)):
        name = next(
            (one for one in METRICS if key[0] in (one, f"{one}_bucket", f"{one}_count", f"{one}_sum")), None
        )
        assert name is not None, key
        assert {label.split("=")[0] for label in key[1:]} - {"le"} == set(METRICS[name][1])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("drift: x", "drift"),
        ("judge: OSError", "judge"),
        ("Registry: down", "registry"),
        ("x: y", "other"),
        ("", "other"),
    ],
)
def test_warnings_are_told_by_their_first_word(text: str, kind: str) -> None:
    assert kind_of(text) == kind


def test_versions_tell_how_their_files_of_keys_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without anybody asking for a prediction: each look at the metrics is one at the file."""
    monkeypatch.setattr(sources, "LOOK", 0.0)
    key = ed25519.Ed25519PrivateKey.generate()
    jwks = write_keys(tmp_path / "jwks", public_jwk(key, "1"))
    make_salt(tmp_path / "salt")
    jwt = {"jwks": str(jwks), "algorithms": ["EdDSA"], "audience": "x"}
    serving = Serving.model_validate({"jwt": jwt})
    keys = load_plugs(Settings(bundle=tmp_path, salt=tmp_path / "salt", serving=serving)).keys
    assert keys is not None
    made = Metrics("digits", "abc", "stable")
    assert "assay_serving_keys" not in made.text().decode()
    made.watch_keys(keys, {"jwks": 86_400.0})
    written = f"{jwks.stat().st_mtime:.3f}"

    def told() -> dict[str, str]:
        lines = [line for line in made.text().decode().splitlines() if line.startswith("assay_serving_keys_")]
        return {
            name.split("{")[0].removeprefix("assay_serving_keys_"): value
            for name, value in map(str.split, lines)
        }

    well = told()
    assert (well["usable"], well["rotation_seconds"]) == ("1.0", "86400.0")
    assert f"{float(well['changed_timestamp_seconds']):.3f}" == written
    jwks.write_text("half wri")
    broken = told()
    assert broken["usable"] == "0.0"
    assert broken["changed_timestamp_seconds"] == well["changed_timestamp_seconds"], "of what is in use"
    jwks.unlink()
    assert told()["usable"] == "0.0"
    write_keys(tmp_path / "jwks", public_jwk(key, "2"))
    os.utime(jwks, (1e9, 1e9))
    assert told() == well | {"changed_timestamp_seconds": "1e+09"}


def test_lines_of_the_prediction_log_are_counted_written_or_dropped(tmp_path: Path) -> None:
    made = Metrics("digits", "abc", "stable")
    put = load_plugs(Settings(bundle=tmp_path, predictions=tmp_path / "log"), made.count_lines).log
    assert put is not None
    put(served())
    put(served(outputs=np.zeros(3, np.float32)))  # of no shape that has a line
    put.__self__.close(60)  # type: ignore[attr-defined]
    told = made.text().decode()
    assert 'assay_serving_log_lines_total{outcome="written"} 1.0' in told
    assert 'assay_serving_log_lines_total{outcome="dropped"} 1.0' in told
