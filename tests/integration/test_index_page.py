"""The index of a results folder in headless Chromium: it fits, stands out, leads somewhere, and sorts by keyboard."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "reporting"))

from test_index import EVIL, copy, results
from test_report_page import (
    CONTRAST,
    CONTROLS,
    DESKTOP,
    FOCUSED,
    MISSING,
    PHONE,
    SHEET,
    TOO_WIDE,
    browser,
    show,
)

from assay.reporting.index import write_index

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: apt-get install {' '.join(MISSING)}"),
]
__all__ = ["browser", "copy", "results"]

NAMES = "return [...document.querySelectorAll('#experiments tbody tr')].map(row => row.cells[0].innerText.split('\\n')[0])"

SIDEWAYS = "return [...document.querySelectorAll('.scroll')].filter(one => one.scrollWidth > one.clientWidth + 1).length"


@pytest.fixture
def page(copy: Path) -> Path:
    """Of a finished experiment, one whose contract is broken, one that goes on, and one whose every word is long."""
    long = copy / ("an-experiment-with-a-name-as-long-as-it-may-be" + "e" * 14)
    long.mkdir()
    text = (copy / "digits" / "experiment.yaml").read_text().replace("name: digits", f"name: {long.name}")
    long.joinpath("experiment.yaml").write_text(
        text.replace('alert("x")', "a-very-long-word-without-any-space" * 8)
    )
    return write_index(copy)[0]


@pytest.mark.parametrize("size", [PHONE, DESKTOP, SHEET], ids=["phone", "desktop", "paper"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_fits_and_stands_out(browser: Any, page: Path, size: tuple[int, int], theme: str) -> None:
    show(browser, page, size, theme=theme, media="print" if size == SHEET else "")
    assert len(browser.execute_script(NAMES)) == 4
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    assert browser.execute_script(TOO_WIDE) == []
    assert browser.execute_script(CONTRAST) == []
    if size != DESKTOP:
        assert browser.execute_script(SIDEWAYS) == 0, "a table scrolls sideways"
    assert browser.get_log("browser") == [], "nothing is thrown, and nothing of the experiments' own runs"
    fetched = "return performance.getEntriesByType('resource').map(one => one.name).filter(one => !one.startsWith('data:'))"
    assert browser.execute_script(fetched) == []


def test_what_an_experiment_says_is_text(browser: Any, page: Path) -> None:
    show(browser, page, DESKTOP)
    assert EVIL in browser.execute_script("return document.querySelector('#experiments').innerText")
    assert browser.execute_script("return document.scripts.length") == 1


def test_every_link_leads_to_a_file(browser: Any, page: Path) -> None:
    show(browser, page, DESKTOP)
    links = browser.execute_script("return [...document.links].map(one => one.href)")
    assert len(links) >= 2
    for link in links:
        found = urlparse(link)
        assert found.scheme == "file" and Path(unquote(found.path)).exists(), link


def test_columns_sort_by_keyboard_and_say_so(browser: Any, page: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    show(browser, page, DESKTOP)
    wanted = browser.execute_script(CONTROLS)
    reached = set()
    for _ in range(len(wanted) + 3):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        found = browser.execute_script(FOCUSED)
        if found is None:
            break
        assert found["outline"] >= 1 and found["inside"], found["html"]
        reached.add(found["place"])
    assert reached == {str(place) for place in range(len(wanted))}
    button = browser.execute_script("return document.querySelector('#experiments th button')")
    button.send_keys(Keys.ENTER)
    names = browser.execute_script(NAMES)
    assert names == sorted(names) and len(names) == 4
    button.send_keys(Keys.SPACE)
    assert browser.execute_script(NAMES) == sorted(names, reverse=True)
    said = "return [...document.querySelectorAll('#experiments th')].map(one => one.getAttribute('aria-sort')).filter(Boolean)"
    assert browser.execute_script(said) == ["descending"]


def test_without_javascript_it_is_complete(browser: Any, page: Path) -> None:
    texts = []
    for script in (True, False):
        show(browser, page, DESKTOP, script=script)
        document = browser.execute_cdp_cmd("DOM.getDocument", {"depth": -1})["root"]["nodeId"]
        html = browser.execute_cdp_cmd("DOM.getOuterHTML", {"nodeId": document})["outerHTML"]
        assert ("<button>" in html) == script
        texts.append(html.replace("<button>", "").replace("</button>", ""))
    assert texts[0] == texts[1]


def test_what_does_not_fit_or_stand_out_would_be_seen(browser: Any, page: Path) -> None:
    show(browser, page, PHONE)
    browser.execute_script("document.querySelector('h1').style.cssText = 'width: 1400px; color: #bbb'")
    assert browser.execute_script(TOO_WIDE) and browser.execute_script(CONTRAST)
    assert browser.execute_script(SIDEWAYS) == 0
    browser.execute_script("document.querySelector('#experiments td').style.minWidth = '1400px'")
    assert browser.execute_script(SIDEWAYS) == 1
