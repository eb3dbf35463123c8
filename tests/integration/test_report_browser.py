"""The report in a real browser: nothing overflows, nothing is fetched, and the verdict is seen at once."""

import json
import re
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reporting"))

from made_results import ARMS, Made

from assay.reporting.run import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium"),
]

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
MEASURE = """<!doctype html><body><iframe id="page" src="index.html" width="WIDTH" height="HEIGHT"></iframe>
<script>
document.getElementById("page").addEventListener("load", event => {
  const page = event.target.contentDocument, root = page.documentElement, width = root.clientWidth;
  page.querySelectorAll("details").forEach(details => details.open = true);
  const rectangle = selector => page.querySelector(selector).getBoundingClientRect();
  const wide = [...page.querySelectorAll("body *")].filter(element => {
    const scrolled = element.closest(".scroll");
    return element.getBoundingClientRect().right > width + 0.5 && (!scrolled || scrolled === element);
  });
  const found = {
    width, scrolls: root.scrollWidth, verdict: rectangle("h1").bottom, verdictTop: rectangle("h1").top,
    host: rectangle(".facts").bottom, figures: page.querySelectorAll("figure svg").length,
    sideways: [...page.querySelectorAll(".scroll")].filter(e => e.scrollWidth > e.clientWidth + 1).length,
    wide: wide.map(element => element.outerHTML.slice(0, 120)),
    small: [...page.querySelectorAll("figure svg")].filter(e => e.getBoundingClientRect().width < 280).length,
  };
  document.body.textContent = "measured:" + JSON.stringify(found) + ":end";
});
</script></body>"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, and remembers what was asked for."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        pass

    def log_request(self, *_: object) -> None:
        self.asked.append(self.path)


def chromium(profile: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    assert CHROMIUM is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    )
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=10000"
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)


def measure(
    folder: Path, profile: Path, size: tuple[int, int]
) -> tuple[dict[str, Any], list[str], list[str]]:
    """What the browser measured, what it complained of, and what it asked the server for."""
    text = MEASURE.replace("WIDTH", str(size[0])).replace("HEIGHT", str(size[1]))
    (folder / "measure.html").write_text(text)
    Quiet.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/measure.html"
        done = chromium(profile, "--window-size=1600,1200", "--dump-dom", address)
        server.shutdown()
    found = re.search(r"measured:(.*):end", done.stdout, flags=re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line and "favicon" not in line]
    return (
        json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")),
        complaints,
        Quiet.asked,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain report, and one with long names, many arms, failures and much text."""
    folder = tmp_path_factory.mktemp("browser")
    names = [*ARMS, *(f"a-long-name-of-an-arm-that-goes-on-and-on-until-sixty-chars-{i}" for i in range(6))]
    made = {
        "plain": Made(folder / "plain"),
        "crowded": Made(
            folder / "crowded",
            question="https://example.org/" + "a-very-long-word-without-any-space" * 8,
            arms={name: ARMS["cnn" if "-" in name else name] for name in names},
            outcomes={("cnn", 1): "diverged", (names[3], 0): "out_of_memory"},
            blocks=2,
        ),
    }
    for one in made.values():
        report(results=one.make(), output=one.results / "report")
    return {name: one.results / "report" for name, one in made.items()}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["plain", "crowded"])
def test_page_in_a_browser(pages: dict[str, Path], tmp_path: Path, name: str, size: str) -> None:
    found, complaints, asked = measure(pages[name], tmp_path, SIZES[size])
    assert found["scrolls"] <= found["width"], found["wide"]
    assert found["wide"] == []
    assert complaints == []
    assert {path for path in asked if "favicon" not in path} == {"/measure.html", "/index.html"}
    assert found["figures"] >= 5
    assert found["small"] == 0
    assert found["verdictTop"] >= 0
    if name == "plain":
        assert max(found["verdict"], found["host"]) < SIZES[size][1], "the verdict is below the fold"
    if size == "phone":
        assert found["sideways"] == 0, "a table scrolls sideways on a phone"


@pytest.mark.parametrize("size", SIZES)
def test_overflow_would_be_seen(pages: dict[str, Path], tmp_path: Path, size: str) -> None:
    """The test itself: a page with one element too wide is found out."""
    broken = tmp_path / "broken"
    broken.mkdir()
    text = (pages["plain"] / "index.html").read_text()
    (broken / "index.html").write_text(text.replace("</main>", '<p style="width: 1400px">wide</p></main>'))
    found, _, _ = measure(broken, tmp_path / "profile", SIZES[size])
    assert found["scrolls"] > found["width"]
    assert found["wide"]
