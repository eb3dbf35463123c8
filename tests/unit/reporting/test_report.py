import csv
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_results import ARMS, Made

from assay.comparison.model import Comparison
from assay.config.metrics import title_of
from assay.records import Measurement, Record, RecordError
from assay.reporting import html
from assay.reporting.figures import plots
from assay.reporting.read import ReportError, load
from assay.reporting.run import report, write_tables
from assay.reporting.style import drawing
from assay.reporting.tables import tables

NASTY = (
    """<script>alert(1)</script> & "quotes" 'and' {{ 7 * 7 }} </style> <img src=x onerror=alert(1)> """
    "\\x00 | _%$#^~\\"
)


class Page(HTMLParser):
    """Text, tags and identifiers of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if "id" in found:
            self.ids.append(str(found["id"]))
        for name in ("src", "href", "xlink:href", "action", "data"):
            if found.get(name):
                self.references.append(str(found[name]))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


SCRIPT = (Path(html.__file__).parent / "templates" / "report.js").read_text().strip()


def page_of(results: Path, output: Path) -> tuple[str, Page]:
    """The page without its figures, and the tables' files."""
    found = load(results)
    made = tables(found)
    write_tables(made, output / "tables")
    text = html.page(found, made, [])
    return text, Page(text)


def test_files_of_the_interface(reported: Path) -> None:
    figures = {path.name for path in (reported / "figures").iterdir()}
    names = {name.rsplit(".")[0] for name in figures}
    assert {
        "differences",
        "forest",
        "paired-slopes",
        "per-class",
        "validation-accuracy",
        "latency",
        "accuracy-against-latency",
    } <= names
    assert figures == {f"{name}.{ending}" for name in names for ending in ("svg", "pdf", "png")}
    tables = {path.name for path in (reported / "tables").iterdir()}
    names = {name.rsplit(".")[0] for name in tables}
    assert {"metrics", "contrasts", "costs", "runs", "contract", "environment", "sources"} <= names
    assert tables == {f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex")}


def test_verdict_comes_first_and_the_host_is_owned_up_to(made: Path, reported: Path) -> None:
    page = Page((reported / "index.html").read_text())
    comparison = Comparison.read(made / "comparison" / "comparison.json")
    body = page.words[page.words.index("digits · Does") :]
    claim = comparison.headline.split(": ")[0]
    assert 0 < body.index(claim) < 150
    assert body.index("Ran on the host, not in a pinned image.") < 600
    assert body.index("The contract held") < 700
    assert "better on 6 of 6 seeds" in body
    assert "+1.7 points" in body


def test_one_file_without_network(reported: Path) -> None:
    text = (reported / "index.html").read_text()
    page = Page(text)
    assert not {"link-stylesheet", "iframe", "object"} & set(page.tags)
    assert page.tags.count("script") == 1 and SCRIPT in text
    assert "fetch(" not in SCRIPT and "import" not in SCRIPT and "XMLHttpRequest" not in SCRIPT
    outside = [found for found in page.references if not found.startswith(("#", "data:"))]
    assert outside == []
    assert {url for url in re.findall(r"https?://[^\s\"'<]+", text) if "w3.org" not in url} == set()
    assert "@import" not in text
    assert "url(http" not in text


def test_identifiers_are_unique_and_references_resolve(reported: Path) -> None:
    page = Page((reported / "index.html").read_text())
    assert len(page.ids) == len(set(page.ids))
    inside = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert inside <= set(page.ids)


def test_figures_follow_the_theme(reported: Path) -> None:
    text = (reported / "index.html").read_text()
    svgs = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--arm-1)" in svgs
    assert "var(--ink)" in svgs
    assert "#c44f00" not in svgs
    assert "#ffffff" not in svgs


def test_same_records_same_bytes_whatever_lay_there(made: Path, reported: Path, tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "figure-of-an-earlier-report.svg").touch()
    report(results=made, output=tmp_path)
    first = {path.relative_to(reported): path.read_bytes() for path in reported.rglob("*") if path.is_file()}
    second = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert first.keys() == second.keys()
    assert [path for path, content in first.items() if second[path] != content] == []


def test_fonts_are_embedded_in_pdf(reported: Path) -> None:
    content = (reported / "figures" / "latency.pdf").read_bytes()
    assert b"/FontFile2" in content
    assert b"CreationDate" not in content


def test_text_of_users_is_escaped(tmp_path: Path) -> None:
    def warn(record: Record) -> None:
        record.warnings = [NASTY]
        record.environment.host = NASTY

    outcomes = {("cnn", 1): "failed"}
    made = Made(tmp_path, question=NASTY, change=warn, outcomes=outcomes, seeds=3, blocks=1)  # type: ignore[arg-type]
    text, page = page_of(made.make(), tmp_path / "report")
    assert page.tags.count("script") == 1 and text.count("</script>") == 1
    assert all(
        source.startswith("data:image/png;base64,") for source in re.findall(r'<img src="([^"]*)"', text)
    )
    assert "{{ 7 * 7 }}" in page.words
    assert "<script>alert" not in text
    assert text.count("</style>") == 1
    latex = (tmp_path / "report" / "tables" / "environment.tex").read_text()
    assert r"\_\%\$\#\textasciicircum{}\textasciitilde{}\textbackslash{}" in latex
    row = next(
        line
        for line in (tmp_path / "report" / "tables" / "environment.md").read_text().splitlines()
        if "Host" in line
    )
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_runs_that_failed_are_shown_with_their_reason(tmp_path: Path) -> None:
    outcomes = {("cnn", 2): "diverged", ("mlp", 0): "out_of_memory", ("mlp", 1): "failed"}
    _, page = page_of(Made(tmp_path, outcomes=outcomes).make(), tmp_path / "report")  # type: ignore[arg-type]
    assert "9 of 12 runs completed" in page.words
    after = page.words[page.words.index("What did not complete") :]
    for text in ("diverged in epoch 4, step 31", "out of memory", "cnn, seed 2", "mlp, seed 0"):
        assert text in after
    with (tmp_path / "report" / "tables" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["outcome"] for row in rows[:3]} == {"diverged", "out_of_memory", "failed"}
    assert all(row["accuracy"] == "" for row in rows[:3])


def test_a_missing_run_is_missing_and_not_zero(tmp_path: Path) -> None:
    made = Made(tmp_path, seeds=3, blocks=0)
    results = made.make()
    for stage in ("train", "evaluate"):
        (results / "runs" / "cnn" / "seed-1" / stage / "record.json").unlink()
    made.results.joinpath("comparison", "comparison.json").unlink()
    from assay.comparison.run import compare

    compare(experiment_file=results / "experiment.yaml", results=results, output=results / "comparison")
    _, page = page_of(results, tmp_path / "report")
    assert "missing" in page.words
    assert "5 of 6 runs completed" in page.words


def test_pinned_image_is_not_called_host(tmp_path: Path) -> None:
    image = {"base_digest": "sha256:" + "a" * 64, "sif_sha256": "b" * 64}
    _, page = page_of(Made(tmp_path, image=image, seeds=2, blocks=1).make(), tmp_path / "report")
    assert "Ran on the host" not in page.words
    assert "sif_sha256" in page.words


def test_a_broken_contract_claims_nothing(tmp_path: Path) -> None:
    def change(record: Record) -> None:
        if record.arm == "cnn":
            record.data_sha256 = "0" * 64

    text, page = page_of(Made(tmp_path, seeds=6, blocks=1, change=change).make(), tmp_path / "report")
    assert "The contract is broken: nothing is claimed." in page.words
    assert "No verdict" in page.words
    assert '"badge better"' not in text
    first = text[text.index("<summary>Contract") :]
    first = first[first.index("<tbody>") :]
    assert first.index("data.manifest") < first.index("✗</span> violated") < first.index("</tr>"), (
        "violations first"
    )
    assert "the prepared data differs between records" in first[: first.index("</tr>")]
    assert "≠</span> declared" in first and "=</span> equal" in first


def test_the_noise_floor_is_shown_with_its_origin(tmp_path: Path) -> None:
    results = Made(tmp_path, noise=True).make()
    text, page = page_of(results, tmp_path / "report")
    assert "Noise floor" in page.words and "mlp against itself, measured as two arms are" in page.words
    assert "on workstation, AMD EPYC 9354 32-Core Processor, 2025-06-01 10:00" in page.words
    assert "no pair differs; up to 39% of pairs might" in page.words
    comparison = Comparison.read(results / "comparison" / "comparison.json")
    with (tmp_path / "report/tables/noise.csv").open() as file:
        floors = {line["quantity"]: line for line in csv.DictReader(file)}
    latency = next(metric for metric in comparison.metrics if metric.name == "latency_ms")
    assert latency.floor is not None and latency.floor.value is not None
    assert float(floors["latency_ms"]["floor"]) == pytest.approx(latency.floor.value)
    assert "parameters" not in floors and "latency_ms@64" in floors
    assert "noise/floor.json" in text


def test_without_a_noise_floor_nothing_is_said_of_it(reported: Path) -> None:
    assert not (reported / "tables" / "noise.csv").exists()
    assert "Noise floor" not in (reported / "index.html").read_text()
    assert "Noise floor" not in (reported / "tables" / "contrasts.md").read_text()


def test_gpu_columns_are_absent_on_cpu(reported: Path) -> None:
    text = (reported / "index.html").read_text()
    for word in ("GPU", "CUDA", "Driver", "UUID"):
        assert word not in text


def test_numbers_in_csv_are_those_of_the_comparison(made: Path, reported: Path) -> None:
    comparison = Comparison.read(made / "comparison" / "comparison.json")
    with (reported / "tables" / "contrasts.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = [contrast for metric in comparison.metrics for contrast in metric.contrasts]
    assert [float(row["estimate"]) for row in rows] == [contrast.estimate for contrast in expected]
    assert [row["verdict"] for row in rows] == [contrast.verdict for contrast in expected]


def test_latex_is_a_booktabs_table(reported: Path) -> None:
    for path in (reported / "tables").glob("*.tex"):
        text = path.read_text()
        found = re.search(r"\\begin\{(?:tabular|longtable)\}\{(.*)\}$", text, flags=re.MULTILINE)
        assert found, path
        assert r"\toprule" in text
        assert r"\bottomrule" in text
        columns = re.findall(r"p\{\\dimexpr|[lr](?=[lr]*$)", found.group(1))
        rows = [line for line in text.splitlines() if line.endswith(r"\\")]
        counts = {len(re.findall(r"(?<!\\)&", line)) + 1 for line in rows}
        assert counts == {len(columns)}, path


def test_many_arms_and_seeds_are_capped_and_the_page_says_so(tmp_path: Path) -> None:
    arms = {f"cnn-{i}": ARMS["cnn"] | {"accuracy": 0.9 + i / 300} for i in range(30)}
    report(results=Made(tmp_path, arms=arms, seeds=4, blocks=1, steps=1).make(), output=tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    words = Page(text).words
    assert "Drawn: 8 of 30 arms." in words
    assert "The first 100 of 120 rows" in words
    assert len(text) < 2_000_000
    with (tmp_path / "report" / "tables" / "runs.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 120


def test_many_seeds_are_capped_and_the_captions_say_so(tmp_path: Path) -> None:
    found = load(Made(tmp_path, seeds=70, blocks=1, steps=1).make())
    drawn = {plot.name: plot.draw(found) for plot in plots() if plot.name != "differences"}
    captions = {name: figure[1] for name, figure in drawn.items() if figure is not None}
    for name in ("paired-slopes", "validation-accuracy", "training-loss"):
        assert "Drawn: 60 of 70 seeds" in captions[name]
    assert "Drawn: 50 of 70 seeds an arm." in captions["reliability"]


def test_nothing_is_drawn_beyond_the_edge(tmp_path: Path) -> None:
    arms = {
        f"a-name-so-long-that-no-figure-has-room-for-it-{i}": ARMS["cnn"] | {"energy": 1.0} for i in range(9)
    }
    found = load(Made(tmp_path, arms=arms, seeds=2, blocks=1, steps=1).make())
    for plot in plots():
        with drawing(salt=plot.name):
            drawn = plot.draw(found)
            assert drawn is not None, plot.name
            figure = drawn[0]
            figure.draw_without_rendering()
        edges = figure.get_tightbbox()
        width, height = figure.get_size_inches()
        assert min(edges.x0, edges.y0) > -0.01, plot.name
        assert edges.x1 < width + 0.01, plot.name
        assert edges.y1 < height + 0.01, plot.name


def test_one_seed_and_no_profile(tmp_path: Path) -> None:
    report(results=Made(tmp_path, seeds=1, blocks=0, logs=False).make(), output=tmp_path / "report")
    page = Page((tmp_path / "report" / "index.html").read_text())
    assert "inconclusive" in page.words
    assert "Not profiled." in page.words
    assert not (tmp_path / "report" / "figures" / "latency.svg").exists()


def test_missing_and_damaged_files_are_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"comparison\.json.*run the experiment"):
        report(results=tmp_path, output=tmp_path / "report")
    results = Made(tmp_path, seeds=1, blocks=0).make()
    (results / "experiment.yaml").write_text("name: [")
    with pytest.raises(ReportError, match=r"experiment\.yaml"):
        report(results=results, output=tmp_path / "report")


def test_entry_point_reports_errors_and_exits_1(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "workflow" / "scripts" / "report.py"
    command = [sys.executable, str(script), "--results", str(tmp_path), "--output", str(tmp_path / "report")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("report: ")
    assert "Traceback" not in done.stderr


def test_a_run_that_missed_the_target_says_so(tmp_path: Path) -> None:
    metrics = ({"name": "accuracy"}, {"name": "target_reached"}, {"name": "train_seconds_to_target"})
    results = Made(tmp_path, target=0.97, blocks=0, metrics=metrics).make()
    text, page = page_of(results, tmp_path)
    (runs,) = [table for table in tables(load(results)) if table.name == "runs"]
    note = [column.title for column in runs.columns].index("Note")
    missed = {(row[0], row[1]) for row in runs.rows if "target not reached" in row[note]}
    assert {arm for arm, _ in missed} == {"mlp"} and len(missed) >= 1
    assert "(target not reached)" in page.words
    assert "nan" not in text.replace(SCRIPT, "").lower().replace("nano", "")


def test_costs_that_were_not_measured_have_no_row_and_those_that_were_have_one(made: Path) -> None:
    """A machine without a GPU gets no lines full of zeros about one."""
    costs = next(table for table in tables(load(made)) if table.name == "costs")
    titles = {row[0] for row in costs.rows}
    assert {"Waiting for data", "Cold start", "Peak memory"} <= titles
    assert not any("GPU" in title or "tilisation" in title or "ransfer" in title for title in titles)
    assert all(any(cell not in {"–", "0", ""} for cell in row[1:]) for row in costs.rows)


def test_all_pairs_ranks_and_probabilities_have_tables(tmp_path: Path) -> None:
    arms = {
        name: {**ARMS["cnn"], "accuracy": level}
        for name, level in (("mlp", 0.9), ("cnn", 0.93), ("cnn-2", 0.98))
    }
    made = Made(tmp_path, arms=arms, seeds=8, blocks=0, comparison={"contrasts": "all", "bayesian": True})
    results = made.make()
    report(results=results, output=tmp_path / "report")
    words = Page((tmp_path / "report" / "index.html").read_text()).words
    assert "All arms" in words
    assert "Bayesian estimation" in words
    tables = tmp_path / "report" / "tables"
    between = list(csv.DictReader((tables / "between.csv").open()))
    assert [(line["arm"], line["baseline"]) for line in between if line["metric"] == "accuracy"] == [
        ("cnn-2", "cnn")
    ]
    ranks = {line["arm"]: line for line in csv.DictReader((tables / "ranks.csv").open())}
    assert [ranks[arm]["rank"] for arm in arms] == ["3", "2", "1"]
    posteriors = list(csv.DictReader((tables / "posteriors.csv").open()))
    assert len(posteriors) == 3
    shared = list(csv.DictReader((tables / "shared-examples.csv").open()))
    assert {(line["arm"], line["baseline"]) for line in shared} == {
        ("cnn", "mlp"),
        ("cnn-2", "mlp"),
        ("cnn-2", "cnn"),
    }
    assert all(
        float(line["new_both_low"]) < float(line["estimate"]) < float(line["new_both_high"])
        for line in shared
    )
    assert "For other seeds and other test examples the difference is" in words


def test_an_effect_tells_its_pairs_and_how_sure_its_share_is(made: Path, reported: Path) -> None:
    comparison = Comparison.read(made / "comparison" / "comparison.json")
    share = comparison.metrics[0].contrasts[0].probability_better
    assert share is not None
    with (reported / "tables" / "contrasts.csv").open() as file:
        row = next(csv.DictReader(file))
    assert (float(row["probability_better_low"]), float(row["probability_better_high"])) == (
        share.low,
        share.high,
    )
    words = Page((reported / "index.html").read_text()).words
    assert "6 seeds 0.031" in words and "1.00 [0.54, 1.00]" in words


def test_the_mean_of_those_that_are_left_says_so(tmp_path: Path) -> None:
    """Next to the baseline's it would be the comparison that the verdict refuses."""
    results = Made(tmp_path, outcomes={("cnn", 2): "diverged"}, blocks=0, logs=False).make()
    report(results=results, output=tmp_path / "report")
    words = Page((tmp_path / "report" / "index.html").read_text()).words
    assert len(re.findall(r"[0-9]% \(5 of 6\) \[", words)) == 1 and "(6 of 6)" not in words
    tile = words[words.index("How much") : words.index("not compared")]
    assert "→" not in tile and "%" not in tile


def test_what_is_not_known_of_the_contract_is_said_in_the_first_lines(made: Path, reported: Path) -> None:
    found = [line.status for line in load(made).contract.variables]
    words = Page((reported / "index.html").read_text()).words
    assert (
        f"as far as recorded; {found.count('unknown')} of {len(found)} circumstances are not known." in words
    )


def test_energy_of_a_training_is_a_cost_where_it_was_measured(tmp_path: Path) -> None:
    def measure(record: Record) -> None:
        if record.stage == "train":
            record.metrics["train_energy"] = Measurement(unit="J", value=120.0)
            record.metrics["train_energy_per_epoch"] = Measurement(unit="J", value=8.0)
            record.metrics["train_energy_per_sample"] = Measurement(unit="J", value=0.008)

    results = load(Made(tmp_path, blocks=0, logs=False, change=measure).make())
    (costs,) = (table for table in tables(results) if table.name == "costs")
    shown = {row[0]: row[1:] for row in costs.rows}
    assert shown["Training energy per run"] == ["120 J", "120 J"]
    assert shown["Training energy per epoch"] == ["8.00 J", "8.00 J"]
    assert shown["Training energy per training sample"] == ["0.00800 J", "0.00800 J"]


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("latency_ms@16", "latency, batch 16"),
        ("latency_p99_ms@1", "latency, batch 1, 99th percentile"),
        ("throughput@64", "throughput, batch 64"),
        ("train_seconds", "training time per run"),
        ("accuracy", "top-1 accuracy"),
        ("something_new", "something new"),
    ],
)
def test_recorded_numbers_have_names(name: str, title: str) -> None:
    assert title_of(name) == title
