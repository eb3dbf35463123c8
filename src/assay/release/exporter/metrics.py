"""Releases as Prometheus metrics: read from their files, and from their versions, when somebody asks.

Labels are few: release, role; `phase`, `outcome`, `event`, `kind` and `code` have a handful of values each. What is not
known is absent. What a version tells of itself is passed on under the names that it has there.
"""

import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector as PrometheusCollector
from prometheus_client.samples import Sample

from assay.release.asking import asked
from assay.release.exporter.traffic import BUCKETS, OUTCOMES, Traffic
from assay.release.layout import Layout
from assay.release.observations import Role
from assay.release.ramp.status import Standing
from assay.release.routing.access import AccessReader
from assay.release.schema import Release
from assay.release.server.files import Service, read_file

RECENT_SECONDS = 24 * 3600.0
"""A release that is over, and whose files have not changed for so long, is told no more, lest its alerts fire for ever."""
ANSWER_SECONDS = 0.7
"""Longest that a version or a front may take to answer: a release in which all of it hangs costs a scrape 2 s."""
ROLES: tuple[Role, ...] = get_args(Role)
_RELEASE, _ROLE = ("release",), ("release", "role")

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "assay_release_phase": ("1 under the phase in which it is.", ("release", "phase")),
    "assay_release_over": ("1 once it is promoted or rolled back.", _RELEASE),
    "assay_release_held": ("1 while a person has to decide.", _RELEASE),
    "assay_release_paused": ("1 while a person keeps it.", _RELEASE),
    "assay_release_controller_up": ("1 while a controller runs.", _RELEASE),
    "assay_release_front_up": ("1 where the front takes a connection.", _RELEASE),
    "assay_release_version_ready": ("1 where the version says that it is ready.", _ROLE),
    "assay_release_share_ratio": ("Share of identified users that are to have the candidate.", _RELEASE),
    "assay_release_front_share_ratio": ("What the front says that it does.", _RELEASE),
    "assay_release_step_seconds": ("In this step, with all as wanted.", _RELEASE),
    "assay_release_candidate_users": ("Users of the candidate in this step.", _RELEASE),
    "assay_release_decide_seconds": ("Until the judge can decide, at this traffic.", _RELEASE),
    "assay_release_split_wrong": ("1 where users come to versions otherwise than the split says.", _RELEASE),
    "assay_release_trouble": ("How much is not as wanted.", _RELEASE),
    "assay_release_disk_full": ("1 while the controller has no room to write.", _RELEASE),
    "assay_release_events_total": ("Lines of the journal.", ("release", "event")),
    "assay_release_warnings": ("Warnings in the journal, by what they are about.", ("release", "kind")),
    "assay_release_requests_total": ("Requests by the answer that the user had.", (*_ROLE, "outcome")),
    "assay_release_attempts_total": (
        "Tries of a version; a failed one may have been answered by the other.",
        (*_ROLE, "outcome"),
    ),
    "assay_release_copies_total": (
        "Of requests, for the shadow, since it was started, by what became of them.",
        ("release", "outcome"),
    ),
    "assay_release_seconds": ("From a user's request to its answer, at the front.", _ROLE),
    "assay_release_exporter_releases": ("That are told.", ()),
    "assay_release_exporter_errors": ("Releases whose files could not be read.", ()),
}
"""Help and labels by name."""
SERVING = "assay_serving_"
"""How the names begin that versions tell themselves (`release/server/metrics.py`); their labels get `release` and `role`."""
KINDS = ("drift", "judge", "front", "registry", "stable", "candidate", "other")
"""Of warnings: what the first word of the text is."""
_WRONG_SPLIT = ("sample ratio:", "split:")


class Sheet:
    """Metrics with their samples."""

    def __init__(self) -> None:
        self._families: dict[str, Metric] = {}

    def add(self, name: str, value: float | None, *labels: str) -> None:
        """What is not known is left out."""
        if value is None:
            return
        text, label_names = METRICS[name]
        if name not in self._families:
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            self._families[name] = family(name, text, labels=label_names)
        self._families[name].add_metric(labels, value)  # type: ignore[attr-defined]

    def histogram(self, name: str, counts: list[int], total: float, *labels: str) -> None:
        """counts: by `BUCKETS`, the last beyond all of them."""
        text, label_names = METRICS[name]
        family = self._families.setdefault(name, Metric(name, text, "histogram"))
        own = dict(zip(label_names, labels, strict=True))
        below = 0
        for bound, count in zip((*BUCKETS, float("inf")), counts, strict=True):
            below += count
            edge = "+Inf" if bound == float("inf") else str(bound)
            family.samples.append(Sample(f"{name}_bucket", own | {"le": edge}, below))
        family.samples += [Sample(f"{name}_count", own, below), Sample(f"{name}_sum", own, total)]

    def pass_on(self, text: str, release: str, role: Role) -> None:
        """A version's own metrics. Raises: ValueError for what is no such text."""
        for told in text_string_to_metric_families(text):
            if not told.name.startswith(SERVING):
                continue
            family = self._families.setdefault(told.name, Metric(told.name, told.documentation, told.type))
            family.samples += [
                Sample(one.name, one.labels | {"release": release, "role": role}, one.value)
                for one in told.samples
            ]

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


class Collector(PrometheusCollector):
    """Looks at all releases below a folder each time somebody asks. Traffic is counted from the first look on."""

    def __init__(self, releases: Path) -> None:
        self._releases = releases
        self._traffic: dict[str, tuple[AccessReader, Traffic]] = {}
        self._told: dict[str, str] = {}
        self._lock = threading.Lock()

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            sheet, told, errors = Sheet(), 0, 0
            for folder in begun(self._releases):
                try:
                    told += self._add(sheet, Layout(folder))
                except (
                    Exception
                ) as error:  # one release's damaged files must not silence the alerts of all others
                    self._tell_once(
                        folder, str(error) if isinstance(error, ValueError) else traceback.format_exc()
                    )
                    errors += 1
            sheet.add("assay_release_exporter_releases", told)
            sheet.add("assay_release_exporter_errors", errors)
            return list(sheet)

    def _add(self, sheet: Sheet, layout: Layout) -> bool:
        """False: it is over for long."""
        standing = Standing(layout)
        if standing.state.over and time.time() - _changed(layout) > RECENT_SECONDS:
            self._traffic.pop(layout.folder.name, None)
            return False
        name = layout.folder.name
        add_state(sheet, name, standing)
        if not _stopped(layout, standing):
            _add_front(sheet, name, standing.release)
            for role in ROLES:
                if standing.state.wanted.of(role) is not None:
                    _add_version(sheet, name, layout, role)
        self._add_traffic(sheet, name, layout)
        return True

    def _add_traffic(self, sheet: Sheet, name: str, layout: Layout) -> None:
        if name not in self._traffic:
            reader = AccessReader(layout.access)
            reader.skip()
            self._traffic[name] = reader, Traffic()
        reader, traffic = self._traffic[name]
        while found := reader.read():
            traffic.see(found)
        for role in ROLES:
            for outcome in OUTCOMES:
                sheet.add(
                    "assay_release_requests_total", traffic.requests[role, outcome], name, role, outcome
                )
            for outcome in ("ok", "failed"):
                sheet.add(
                    "assay_release_attempts_total", traffic.attempts[role, outcome], name, role, outcome
                )
            sheet.histogram("assay_release_seconds", traffic.counts[role], traffic.seconds[role], name, role)

    def _tell_once(self, folder: Path, what: str) -> None:
        if self._told.get(folder.name) != what:
            self._told[folder.name] = what
            print(f"{folder}: cannot be read\n{what}", file=sys.stderr, flush=True)


def begun(releases: Path) -> list[Path]:
    """Folders of releases."""
    try:
        return sorted(path for path in releases.iterdir() if Layout(path).journal.exists())
    except OSError:
        return []


def add_state(sheet: Sheet, name: str, standing: Standing) -> None:
    """What journal and state say."""
    state, progress = standing.state, standing.progress
    sheet.add("assay_release_phase", 1, name, state.phase)
    sheet.add("assay_release_over", float(state.over), name)
    sheet.add("assay_release_held", float(state.held is not None and not state.over), name)
    sheet.add("assay_release_paused", float(state.paused and not state.over), name)
    sheet.add("assay_release_controller_up", float(standing.controller is not None), name)
    sheet.add("assay_release_share_ratio", state.wanted.share, name)
    wrong = any(text.startswith(_WRONG_SPLIT) for text in (*progress.reasons, *progress.warnings))
    sheet.add("assay_release_split_wrong", float(wrong and not state.over), name)
    if standing.controller is not None:  # else it is what somebody saw who is gone
        sheet.add("assay_release_front_share_ratio", 0.0 if standing.halted else progress.share, name)
        sheet.add("assay_release_disk_full", float(standing.no_room), name)
        sheet.add("assay_release_step_seconds", progress.elapsed, name)
        sheet.add("assay_release_candidate_users", progress.users, name)
        sheet.add("assay_release_decide_seconds", progress.seconds_to_decide, name)
        sheet.add("assay_release_trouble", len(progress.trouble), name)
    for event, count in sorted(Counter(line.event for line in standing.lines).items()):
        sheet.add("assay_release_events_total", count, name, event)
    if standing.copies is not None:
        for outcome, number in asdict(standing.copies).items():
            if outcome != "received":
                sheet.add("assay_release_copies_total", number, name, outcome)
    kinds = Counter(kind_of(line.reason) for line in standing.lines if line.event == "warning")
    for kind in KINDS:
        sheet.add("assay_release_warnings", kinds[kind], name, kind)


def kind_of(warning: str) -> str:
    """What it is about; texts begin with it."""
    first = warning.split(":")[0].split(" ")[0].lower()
    return first if first in KINDS else "other"


def _stopped(layout: Layout, standing: Standing) -> bool:
    """Whether somebody ended it after it was over: a supervisor that ends as it should leaves no word of itself.

    And whether another release has its front, which that one tells of."""
    if standing.state.successor is not None:
        return True
    service = layout.service("stable") / "service.json"
    return standing.state.over and standing.controller is None and not service.exists()


def _add_front(sheet: Sheet, name: str, release: Release) -> None:
    routing = release.routing
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(routing.address, routing.address)
    try:
        socket.create_connection((host, routing.port), ANSWER_SECONDS).close()
        up = True
    except OSError:
        up = False
    sheet.add("assay_release_front_up", float(up), name)


def _add_version(sheet: Sheet, name: str, layout: Layout, role: Role) -> None:
    service = read_file(layout.service(role) / "service.json", Service)
    if service is None:
        sheet.add("assay_release_version_ready", 0.0, name, role)
        return
    host = f"[{service.address}]" if ":" in service.address else service.address
    text = _get(host, service.port, "metrics")
    ready = text is not None and _get(host, service.port, "health/ready") is not None
    sheet.add("assay_release_version_ready", float(ready), name, role)
    if text is not None:
        sheet.pass_on(text, name, role)


def _get(host: str, port: int, path: str) -> str | None:
    """None: no answer, or not a good one."""
    try:
        return asked(f"http://{host}:{port}/{path}", ANSWER_SECONDS).decode()
    except (OSError, ValueError, HTTPException):
        return None


def _changed(layout: Layout) -> float:
    return max(path.stat().st_mtime for path in (layout.journal, layout.state) if path.exists())
