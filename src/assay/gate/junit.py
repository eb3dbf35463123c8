"""The gate as JUnit XML: one suite, a test case for the contract and one per metric.

There is no official schema. What is written holds to the strictest of those in use, the one of Ant's own formatter (elements in
order, `timestamp` without a zone, `hostname`, counts), and so to the looser ones of Jenkins and GitLab.
"""

import re
from xml.etree import ElementTree

from assay.gate.model import Gate
from assay.gate.wording import change

_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 has no way to write."""


def junit(gate: Gate, *, timestamp: str, hostname: str) -> bytes:
    """timestamp: UTC, to the second, without a zone. An undecided metric is a failure where the exit code is one."""
    undecided_fails = gate.exit_code != 0
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(suites, "testsuite")
    ElementTree.SubElement(suite, "properties").extend(_properties(gate))
    contract = _case(suite, gate, "contract")
    if gate.decision in {"refused", "unfinished"}:
        _result(contract, "error", gate.decision, gate.headline, "\n".join(gate.violations))
    for one in gate.cases:
        case = _case(suite, gate, one.name)
        if one.outcome == "worse":
            _result(case, "failure", "worse", f"{one.title}: {one.sentence}", change(one))
        elif one.outcome == "inconclusive" and undecided_fails:
            _result(case, "failure", "inconclusive", f"{one.title}: {one.sentence}", change(one))
        elif one.outcome == "inconclusive":
            ElementTree.SubElement(case, "skipped")
    ElementTree.SubElement(suite, "system-out").text = _clean(gate.headline)
    ElementTree.SubElement(suite, "system-err").text = _clean("\n".join(gate.notes))
    counts = {
        name: sum(1 for _ in suite.iter(tag))
        for name, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"))
    }
    suite.attrib |= {
        "package": "assay",
        "id": "0",
        "name": f"assay gate {gate.experiment}",
        "timestamp": timestamp,
        "hostname": hostname,
        "time": "0",
        **{name: str(count) for name, count in counts.items()},
    }
    ElementTree.indent(suites)
    text: str = ElementTree.tostring(suites, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _properties(gate: Gate) -> list[ElementTree.Element]:
    values = {"baseline": gate.baseline, "candidate": gate.candidate, "decision": gate.decision}
    return [
        ElementTree.Element("property", {"name": name, "value": _clean(value)})
        for name, value in values.items()
    ]


def _case(suite: ElementTree.Element, gate: Gate, name: str) -> ElementTree.Element:
    attributes = {"name": name, "classname": f"assay.gate.{gate.experiment}", "time": "0"}
    return ElementTree.SubElement(suite, "testcase", attributes)


def _result(case: ElementTree.Element, tag: str, kind: str, message: str, details: str) -> None:
    element = ElementTree.SubElement(case, tag, {"message": _clean(message), "type": kind})
    element.text = _clean(details)


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
