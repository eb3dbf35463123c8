"""The report in headless Chromium, driven as a reader does: phone, keyboard, dark and light, print, without JavaScript."""

import base64
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reporting"))

from made_results import ARMS, Made
from ports import free_port

from assay.records import Record
from assay.reporting.run import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = [name for name, path in (("chromium", CHROMIUM), ("chromium-driver", DRIVER)) if path is None]
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: apt-get install {' '.join(MISSING)}"),
]

PHONE, DESKTOP, SHEET = (390, 844), (1280, 900), (717, 1047)
"""CSS pixels; the last is what A4 leaves between margins of 0.4 in."""

SETTLED = "return document.getAnimations().every(one => one.playState !== 'running')"

TOO_WIDE = """
const width = document.documentElement.clientWidth;
return [...document.querySelectorAll("body *")].filter(one => {
  const box = one.getBoundingClientRect(), around = one.closest(".scroll");
  const scrolls = around && around !== one && getComputedStyle(around).overflowX === "auto";
  return box.width > 0 && !one.closest("svg svg, svg *") && (box.right > width + 0.5 || box.left < -0.5) && !scrolls
    && !one.classList.contains("skip");
}).map(one => one.outerHTML.slice(0, 120));
"""

IMAGES = """
return [...document.images].map(one => ({alt: one.alt, drawn: one.complete && one.naturalWidth > 0}));
"""

FIGURES = """
return [...document.querySelectorAll("figure svg")].map(one => ({
  name: document.getElementById(one.getAttribute("aria-labelledby"))?.textContent ?? "",
  role: one.getAttribute("role"), width: one.getBoundingClientRect().width, parts: one.querySelectorAll("path, use").length,
}));
"""

CONTRAST = """
const parse = text => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
function behind(one) {
  for (; one; one = one.parentElement) {
    const found = parse(getComputedStyle(one).backgroundColor);
    if (found[3] === 1) return found;
    if (found[3] > 0) throw new Error("a colour that shines through: " + one.outerHTML.slice(0, 80));
  }
  return [255, 255, 255, 1];
}
const low = [];
for (const one of document.querySelectorAll("body, body *:not(svg *):not(script)")) {
  const own = [...one.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || one.checkVisibility && !one.checkVisibility()) continue;
  const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
  const ratio = (a + 0.05) / (b + 0.05);
  if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${one.outerHTML.slice(0, 100)}`);
}
return low;
"""

CONTROLS = """
const wanted = [...document.querySelectorAll("a[href], button, input, summary, [tabindex='0']")].filter(one => one.checkVisibility());
wanted.forEach((one, place) => one.dataset.place = place);
return wanted.map(one => one.outerHTML.slice(0, 80));
"""

FOCUSED = """
const one = document.activeElement, style = getComputedStyle(one);
return one === document.body ? null : {
  place: one.dataset.place, outline: style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth),
  inside: one.getBoundingClientRect().left >= 0, html: one.outerHTML.slice(0, 80),
};
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "no-first-run",
        "hide-scrollbars",
    ):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER), port=free_port()))
    driver.set_page_load_timeout(600)
    driver.set_script_timeout(600)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain report, and one with long names, many arms, failures and much text."""
    folder = tmp_path_factory.mktemp("pages")

    def change(record: Record) -> None:
        record.warnings = ["a warning with-a-very-long-word-" + "x" * 90]
        record.resumed = record.stage == "train" and record.seed == 2

    names = [*ARMS, *(f"a-long-name-of-an-arm-that-goes-on-and-on-until-sixty-chars-{i}" for i in range(6))]
    made = {
        "plain": Made(folder / "plain", noise=True),
        "crowded": Made(
            folder / "crowded",
            question="https://example.org/" + "a-very-long-word-without-any-space" * 8,
            arms={name: ARMS["cnn" if "-" in name else name] for name in names},
            outcomes={("cnn", 1): "diverged", (names[3], 0): "out_of_memory"},
            blocks=2,
            change=change,
        ),
    }
    for one in made.values():
        report(results=one.make(), output=one.results / "report")
    return {name: one.results / "report" / "index.html" for name, one in made.items()}


def show(
    browser: Any,
    page: Path,
    size: tuple[int, int],
    *,
    theme: str = "light",
    media: str = "",
    script: bool = True,
) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": theme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get_log("browser")
    browser.get(page.as_uri())


def unfold(browser: Any) -> None:
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("name", ["plain", "crowded"])
def test_nothing_scrolls_sideways_and_everything_is_drawn(
    browser: Any, pages: dict[str, Path], name: str, size: tuple[int, int]
) -> None:
    show(browser, pages[name], size)
    unfold(browser)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    assert browser.execute_script(TOO_WIDE) == []
    images = browser.execute_script(IMAGES)
    assert len(images) >= 2 and all(one["alt"] and one["drawn"] for one in images)
    figures = browser.execute_script(FIGURES)
    assert len(figures) >= 9
    for one in figures:
        assert one["name"] and one["role"] == "img" and one["width"] >= 280 and one["parts"] > 5, one
    assert [line for line in browser.get_log("browser") if "favicon" not in line["message"]] == []


def test_what_is_too_wide_not_drawn_or_thrown_would_be_seen(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "index.html"
    addition = '<p style="width: 1400px">wide</p><img alt="" src="data:image/png;base64,AAAA"><script>throw Error("x")</script></main>'
    broken.write_text(pages["plain"].read_text().replace("</main>", addition))
    show(browser, broken, PHONE)
    assert browser.execute_script("return document.documentElement.scrollWidth") > PHONE[0]
    assert browser.execute_script(TOO_WIDE)
    assert {"alt": "", "drawn": False} in browser.execute_script(IMAGES)
    assert any("Error" in line["message"] for line in browser.get_log("browser"))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["plain", "crowded"])
def test_all_text_stands_out(browser: Any, pages: dict[str, Path], name: str, theme: str) -> None:
    """4.5 to 1, as WCAG 2.2 asks of text of any size (1.4.3)."""
    show(browser, pages[name], DESKTOP, theme=theme)
    unfold(browser)
    dark = (
        browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        != "rgb(246, 247, 249)"
    )
    assert dark == (theme == "dark"), "the theme is not the one that is measured"
    assert browser.execute_script(CONTRAST) == []


def test_faint_text_would_be_seen(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages["plain"], DESKTOP)
    browser.execute_script("document.querySelector('.lead, .after').style.color = '#999'")
    assert len(browser.execute_script(CONTRAST)) == 1


def test_the_keyboard_reaches_every_control_and_shows_where_it_is(
    browser: Any, pages: dict[str, Path]
) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, pages["plain"], DESKTOP)
    wanted = browser.execute_script(CONTROLS)
    assert len(wanted) > 20
    reached: set[str] = set()
    for _ in range(len(wanted) + 5):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        found = browser.execute_script(FOCUSED)
        if found is None:
            break
        assert found["outline"] >= 2 and found["inside"], found["html"]
        reached.add(found["place"])
    assert {text for place, text in enumerate(wanted) if str(place) not in reached} == set()


def test_tables_sort_and_filter_by_keyboard(browser: Any, pages: dict[str, Path]) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    show(browser, pages["plain"], DESKTOP)
    unfold(browser)
    (table,) = [
        one
        for one in browser.find_elements(By.CSS_SELECTOR, ".scroll")
        if one.get_attribute("aria-label") == "Table: Runs"
    ]
    heads = table.find_elements(By.CSS_SELECTOR, "th")
    column = next(place for place, head in enumerate(heads) if head.text.startswith("Training time"))

    def cells() -> list[str]:
        return [
            row.find_elements(By.TAG_NAME, "td")[column].text
            for row in table.find_elements(By.CSS_SELECTOR, "tbody tr")
            if row.is_displayed()
        ]

    values = [float(text.split(" ")[0]) for text in cells()]
    assert len(values) == 12 and values != sorted(values)
    button = heads[column].find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert [float(text.split(" ")[0]) for text in cells()] == sorted(values)
    assert heads[column].get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.SPACE)
    assert [float(text.split(" ")[0]) for text in cells()] == sorted(values, reverse=True)
    field = browser.execute_script("return arguments[0].previousElementSibling.querySelector('input')", table)
    field.send_keys("cnn completed")
    assert len(cells()) == 6
    field.send_keys(" nothing of that name")
    assert cells() == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_without_javascript_the_page_is_complete(
    browser: Any, pages: dict[str, Path], size: tuple[int, int]
) -> None:
    show(browser, pages["plain"], size)
    texts = {}
    for script in (True, False):
        show(browser, pages["plain"], size, script=script)
        document = browser.execute_cdp_cmd("DOM.getDocument", {"depth": 0})["root"]["nodeId"]
        html = browser.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": document})["outerHTML"]
        assert ('class="sort"' in html) == script, (
            "JavaScript ran where it should not, or did not where it should"
        )
        text = re.sub(
            r"<(style|script).*?</\1>|<label class=\"filter\".*?</label>|<[^>]*>", " ", html, flags=re.DOTALL
        )
        texts[script] = text.split()
    show(browser, pages["plain"], size)
    assert texts[True] == texts[False] and len(texts[True]) > 1000


@pytest.mark.parametrize("name", ["plain", "crowded"])
def test_on_paper_no_table_is_cut(browser: Any, pages: dict[str, Path], name: str) -> None:
    show(browser, pages[name], SHEET, media="print")
    unfold(browser)
    assert browser.execute_script(TOO_WIDE) == []
    cut = "return [...document.querySelectorAll('.scroll')].filter(one => getComputedStyle(one).overflowX !== 'visible').length"
    assert browser.execute_script(cut) == 0
    cut = "return [...document.querySelectorAll('tr')].filter(one => getComputedStyle(one).breakInside !== 'avoid').length"
    assert browser.execute_script(cut) == 0
    hidden = (
        "return [...document.querySelectorAll('nav, .filter')].filter(one => one.checkVisibility()).length"
    )
    assert browser.execute_script(hidden) == 0
    assert browser.execute_script(CONTRAST) == []


def test_the_pdf_holds_what_is_folded_on_the_screen(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    """Twice: with and without what is folded, which is a page or more."""
    show(browser, pages["plain"], DESKTOP)
    counts = []
    for remove in (False, True):
        if remove:
            browser.execute_script("document.querySelectorAll('details').forEach(one => one.remove())")
        settings = {"printBackground": True, "paperWidth": 8.27, "paperHeight": 11.69}
        content = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", settings)["data"])
        assert content.startswith(b"%PDF")
        counts.append(len(re.findall(rb"/Type\s*/Page\b", content)))
    assert counts[0] > counts[1] >= 3


def test_a_table_wider_than_the_sheet_would_be_seen(browser: Any, pages: dict[str, Path]) -> None:
    show(browser, pages["plain"], SHEET, media="print")
    browser.execute_script("document.querySelector('table').style.width = '900px'")
    assert browser.execute_script(TOO_WIDE)
