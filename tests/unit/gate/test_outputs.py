"""What pipelines read: JUnit XML, Markdown, JSON, the webhook."""

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest_gate import GOOD, moved
from ports import free_port

from assay.cli import main
from assay.gate.junit import junit
from assay.gate.markdown import markdown
from assay.gate.model import Gate
from assay.gate.run import gate
from assay.gate.webhook import notify, url_problem

Side = Callable[..., Path]
MOMENT = {"timestamp": "2026-01-01T10:00:00", "hostname": "node1"}

# Elements of the JUnit format as Ant's formatter writes it: required attributes with their form, children in order.
NUMBER, TEXT = r"\d+(\.\d+)?", r"(?s).*"
ELEMENTS: dict[str, tuple[dict[str, str], str]] = {
    "testsuites": ({}, "(testsuite )*"),
    "testsuite": (
        {
            "name": ".+",
            "package": ".+",
            "id": r"\d+",
            "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
            "hostname": ".+",
            "tests": r"\d+",
            "failures": r"\d+",
            "errors": r"\d+",
            "time": NUMBER,
        },
        "properties (testcase )*system-out system-err ",
    ),
    "properties": ({}, "(property )*"),
    "property": ({"name": ".+", "value": TEXT}, ""),
    "testcase": ({"name": ".+", "classname": ".+", "time": NUMBER}, "(skipped |error |failure )?"),
    "failure": ({"message": TEXT, "type": ".+"}, ""),
    "error": ({"message": TEXT, "type": ".+"}, ""),
    "skipped": ({}, ""),
    "system-out": ({}, ""),
    "system-err": ({}, ""),
}


def problems(xml: bytes) -> list[str]:
    """What does not hold to the format."""
    root = ElementTree.fromstring(xml)
    found = [] if root.tag == "testsuites" else [f"root is {root.tag}"]
    for element in root.iter():
        attributes, children = ELEMENTS[element.tag]
        found += [f"{element.tag}: attribute {name}" for name in element.attrib.keys() ^ attributes.keys()]
        found += [
            f"{element.tag}: {name}={element.attrib[name]!r}"
            for name, form in attributes.items()
            if name in element.attrib and not re.fullmatch(form, element.attrib[name])
        ]
        order = "".join(f"{child.tag} " for child in element)
        if not re.fullmatch(children, order):
            found.append(f"{element.tag}: children {order}")
    for suite in root:
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error")):
            if int(suite.attrib[name]) != sum(1 for _ in suite.iter(tag)):
                found.append(f"{name} is not the number of {tag}")
    return found


@pytest.fixture
def found(side: Side) -> Gate:
    return gate(candidate=side("candidate", moved(GOOD, -0.03)), baseline=side("baseline"))


def test_junit_has_a_case_per_metric(found: Gate) -> None:
    xml = junit(found, **MOMENT)
    assert problems(xml) == []
    suite = ElementTree.fromstring(xml)[0]
    assert [case.attrib["name"] for case in suite.iter("testcase")] == ["contract", "completed", "accuracy"]
    (failure,) = suite.iter("failure")
    assert (
        failure.attrib["type"] == "worse" and "by more than 1 percentage points" in failure.attrib["message"]
    )


def test_the_junit_check_sees_what_is_wrong(found: Gate) -> None:
    xml = junit(found, **MOMENT)
    for before, after in (
        (b"hostname=", b"host="),
        (b'failures="1"', b'failures="2"'),
        (b"T10:00:00", b"T10:00:00Z"),
        (b"<properties>", b"<system-out /><properties>"),
    ):
        assert before in xml and problems(xml.replace(before, after, 1))


def test_undecided_is_skipped_where_the_pipeline_goes_on(side: Side) -> None:
    noisy = {"accuracy": [0.80, 0.99, 0.85, 0.99, 0.83, 0.99]}
    sides = {"candidate": side("candidate", noisy), "baseline": side("baseline")}
    for choice, tag in ((None, "failure"), ("fail", "failure"), ("pass", "skipped")):
        xml = junit(gate(**sides, inconclusive=choice), **MOMENT)
        assert problems(xml) == [] and len(list(ElementTree.fromstring(xml).iter(tag))) == 1


def test_a_refused_gate_is_an_error_of_the_contract(side: Side) -> None:
    refused = gate(
        candidate=side("candidate", change={"packages": {"torch": "<&\x00\x1b]]>"}}),
        baseline=side("baseline"),
    )
    xml = junit(refused, **MOMENT)
    assert problems(xml) == []
    case = next(ElementTree.fromstring(xml).iter("testcase"))
    assert case.attrib["name"] == "contract" and case[0].tag == "error"
    assert "Undeclared differences" in markdown(refused)


def test_markdown_tells_the_decision_and_escapes_what_records_say(found: Gate) -> None:
    text = markdown(found)
    assert "### Assay gate: worse" in text and "| \u274c worse | top-1 accuracy" in text
    crafted = found.model_copy(update={"notes": ["a | b\n# <img src=x> @everyone [x](http://y)"]})
    line = next(line for line in markdown(crafted).splitlines() if line.startswith("- a"))
    assert line.startswith(r"- a \| b \# \<img src=x\> ") and "@everyone" not in line and "[x]" not in line


# --- the webhook --------------------------------------------------------------------------------------------


class Server:
    """A real one on a free port, that answers as it is told."""

    def __init__(self, answers: list[int], delay: float = 0) -> None:
        self.received: list[tuple[dict[str, str], bytes]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.received.append((dict(self.headers), body))
                time.sleep(delay)
                status = answers[min(len(outer.received), len(answers)) - 1]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", f"{outer.url}/elsewhere")
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook/SECRET-PATH"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: int, delay: float = 0) -> Server:
        servers.append(Server(list(answers) or [200], delay))
        return servers[-1]

    yield start
    for one in servers:
        one.server.shutdown()
        one.server.server_close()


NO_PAUSE = (0.0, 0.0)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds for which a server may be stopped without having failed to answer."""
    from assay.gate import webhook

    monkeypatch.setattr(webhook, "SECONDS_PER_ATTEMPT", 300.0)
    return 300.0


def test_the_webhook_gets_the_json(
    found: Gate, serve: Callable[..., Server], patient: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_WEBHOOK_TOKEN", "TOKEN-1")
    server = serve()
    assert notify(found, server.url, seconds=patient) is None
    ((headers, body),) = server.received
    assert Gate.model_validate_json(body) == found
    assert headers["Authorization"] == "Bearer TOKEN-1" and headers["Content-Type"] == "application/json"


@pytest.mark.parametrize(
    ("answers", "tries", "arrives"),
    [
        ((500, 200), 2, True),
        ((429, 503, 200), 3, True),
        ((500,), 3, False),
        ((404,), 1, False),
        ((302,), 1, False),
    ],
)
def test_the_webhook_tries_again_where_that_can_help(
    found: Gate,
    serve: Callable[..., Server],
    patient: float,
    answers: tuple[int, ...],
    tries: int,
    arrives: bool,
) -> None:
    server = serve(*answers)
    problem = notify(found, server.url, seconds=patient, pauses=NO_PAUSE)
    assert len(server.received) == tries and (problem is None) == arrives
    assert problem is None or ("SECRET" not in problem and str(answers[-1]) in problem)


def test_a_webhook_that_hangs_is_given_up(found: Gate, serve: Callable[..., Server]) -> None:
    server = serve(200, delay=600)
    assert notify(found, server.url, seconds=0.3) == "webhook at 127.0.0.1: no answer within 0.3 s"


def test_one_whose_attempt_ends_before_the_wait_for_it_is_told_alike(
    found: Gate, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    from assay.gate import webhook

    monkeypatch.setattr(webhook, "SECONDS_PER_ATTEMPT", 0.05)
    server = serve(200, delay=600)
    problem = notify(found, server.url, seconds=60, pauses=NO_PAUSE)
    assert problem == "webhook at 127.0.0.1: no answer within 60 s"


def test_a_dead_webhook_changes_no_exit_code_and_tells_no_secret(
    side: Side, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from assay.gate import webhook

    monkeypatch.setattr(webhook, "_PAUSES", NO_PAUSE)
    monkeypatch.setenv("ASSAY_WEBHOOK_TOKEN", "TOKEN-1\nX")
    sides = [str(side("candidate")), "--baseline", str(side("baseline")), "--webhook"]
    dead = f"http://127.0.0.1:{free_port()}/SECRET"
    for url in (dead, "https://user:SECRET@host/x", "SECRET", "file:///SECRET", "http://[SECRET/x", ""):
        monkeypatch.setenv("ASSAY_WEBHOOK_URL", url)
        assert main(["gate", *sides]) == 0
        said = capsys.readouterr()
        assert "warning" in said.err and "SECRET" not in said.out + said.err and "TOKEN-1" not in said.err


def test_urls_that_cannot_be_are_told_without_being_told() -> None:
    assert url_problem("https://hooks.example.org/services/T/B") is None
    for url in ("ftp://x/y", "https://", "http://a b/", "http://h:port/x"):
        assert url_problem(url)


def test_files_are_written_before_the_webhook_is_asked(
    side: Side, tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.setenv("ASSAY_WEBHOOK_URL", server.url)
    monkeypatch.delenv("ASSAY_WEBHOOK_TOKEN", raising=False)
    words = ["gate", str(side("candidate")), "--baseline", str(side("baseline")), "--webhook"]
    words += ["--json", str(tmp_path / "g.json"), "--junit", str(tmp_path / "g.xml")]
    assert main([*words, "--markdown", str(tmp_path / "g.md")]) == 0
    assert problems((tmp_path / "g.xml").read_bytes()) == []
    assert json.loads((tmp_path / "g.json").read_text()) == json.loads(server.received[0][1])
    assert "passed" in (tmp_path / "g.md").read_text() and "Authorization" not in server.received[0][0]
    assert os.environ["ASSAY_WEBHOOK_URL"] not in (tmp_path / "g.json").read_text()
