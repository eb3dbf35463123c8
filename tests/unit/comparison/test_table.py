"""`assay compare TABLE`: the judge of records on a table, and what is wrong with tables."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from assay.cli import main
from assay.comparison.model import Comparison
from assay.comparison.table import TableError, read_table

MLP = [0.968, 0.967, 0.970, 0.966, 0.969, 0.968]
CNN = [0.987, 0.985, 0.989, 0.986, 0.984, 0.990]
Rows = list[tuple[str, int, str, float | str]]


def rows(metric: str = "accuracy", **arms: list[float]) -> Rows:
    arms = arms or {"mlp": MLP, "cnn": CNN}
    return [(arm, seed, metric, value) for arm, values in arms.items() for seed, value in enumerate(values)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def build(content: Rows, name: str = "results.csv") -> Path:
        path = tmp_path / name
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerow(("arm", "seed", "metric", "value"))
            writer.writerows(content)
        return path

    return build


def compare(path: Path, *options: str) -> Comparison:
    """As the command does."""
    output = path.parent / "output"
    assert main(["compare", str(path), "--output", str(output), *options]) == 0
    return Comparison.read(output / "comparison.json")


def test_a_table_and_records_of_the_same_numbers_come_to_the_same_contrast(
    write: Callable[..., Path], make: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    loss = {"mlp": [0.20, 0.21, 0.22, 0.20, 0.21, 0.19], "cnn": [0.21, 0.20, 0.23, 0.19, 0.21, 0.20]}
    recorded = make(
        {"accuracy": {"mlp": MLP, "cnn": CNN}, "loss": loss},
        metrics=[{"name": "accuracy", "margin": 0.01}, {"name": "loss", "margin": 0.05}],
    ).compare()
    table = compare(
        write(rows() + rows("loss", **loss)), "--metric", "accuracy:0.01", "--metric", "loss:0.05"
    )
    for metric in recorded.metrics:
        metric.contrasts = [one.model_copy(update={"shared_examples": None}) for one in metric.contrasts]
    assert [metric.contrasts for metric in table.metrics] == [metric.contrasts for metric in recorded.metrics]
    assert (recorded.contract, table.contract) == ("checked", "none")
    assert table.headline in " ".join(capsys.readouterr().out.split())
    assert table.warnings[0].startswith("no contract: Assay did not produce results.csv")


def test_a_metric_of_ones_own(write: Callable[..., Path]) -> None:
    path = write(rows("bleu", a=[31, 30, 32, 33, 31, 30], b=[29, 28, 30, 30, 29, 27]))
    for spec, estimate in (("bleu:higher:difference:5", -2.333), ("bleu:higher:ratio", 0.925)):
        (metric,) = compare(path, "--metric", spec).metrics
        assert metric.contrasts[0].estimate == pytest.approx(estimate, abs=0.001)
    assert metric.contrasts[0].verdict == "worse"
    assert "  " not in metric.contrasts[0].sentence, "a unit that there is none of leaves no gap"
    settings = path.with_name("how.yaml")
    settings.write_text(
        "baseline: b\nmetrics:\n  - {name: bleu, direction: lower, scale: difference, title: BLEU, unit: points}\n"
    )
    table = compare(path, "--settings", str(settings))
    assert table.metrics[0].contrasts[0].sentence.startswith("a is worse in BLEU than b: BLEU 31.2 points")
    assert compare(path, "--settings", str(settings), "--baseline", "a").baseline == "a"


def test_formats_agree(write: Callable[..., Path]) -> None:
    content = rows()
    first = read_table(write(content))
    again = read_table(write(content, "results.tsv"))
    frame = pl.DataFrame(content, schema=["arm", "seed", "metric", "value"], orient="row")
    path = first.path.with_suffix(".parquet")
    frame.with_columns(pl.lit(1).alias("other")).write_parquet(path)
    parquet = read_table(path)
    assert first.values == again.values == parquet.values
    assert (first.ignored, parquet.ignored) == ([], ["other"])
    marked = first.path.with_name("marked.csv")
    marked.write_bytes(b"\xef\xbb\xbf" + first.path.read_bytes().replace(b"\r\n", b"\n") + b"\n")
    assert read_table(marked).values == first.values


def test_known_metrics_are_judged_as_they_appear(write: Callable[..., Path]) -> None:
    path = write(
        rows("loss", a=CNN, b=MLP) + rows("latency_ms", a=CNN, b=MLP) + rows("parameters", a=[5], b=[4])
    )
    table = compare(path)
    assert [(metric.name, metric.pairing) for metric in table.metrics] == [
        ("loss", "seed"),
        ("latency_ms", "seed"),
        ("parameters", "exact"),
    ]
    assert {metric.contrasts[0].verdict for metric in table.metrics} == {"better"}
    assert any(
        "not judged" in text and "loss" in text for text in compare(path, "--metric", "latency_ms").warnings
    )


@pytest.mark.parametrize("value", ["", "NaN", "nan", "NA", None])
def test_a_missing_value_is_inconclusive(write: Callable[..., Path], value: str | None) -> None:
    content = rows()
    if value is None:
        del content[-1]
    else:
        content[-1] = (*content[-1][:3], value)
    table = compare(write(content))
    (contrast,) = table.metrics[0].contrasts
    assert (contrast.verdict, contrast.pairs) == ("inconclusive", 0)
    assert "no value for cnn at seed 5" in contrast.sentence
    assert [(one.arm, one.replicate, one.outcome) for one in table.failures] == (
        [("cnn", 5, "missing")] if value is None else []
    )


HEAD = "arm,seed,metric,value\n"
WRONG = {
    "semicolons": ("arm;seed;metric;value\na;0;loss;0,5\n", ":1: columns are separated by semicolons"),
    "tabs": (HEAD.replace(",", "\t"), "end the file's name with .tsv"),
    "empty": ("", "is empty; begin with the line arm,seed,metric,value"),
    "no rows": (HEAD, "has no rows"),
    "no column": ("arm,metric,value\na,loss,1\n", ":1: no column seed among arm, metric, value"),
    "column twice": ("arm,seed,metric,value,arm\n", ":1: two columns arm"),
    "words": (HEAD + "a,0,loss,good\n", ":2: column value: 'good' is not a finite number"),
    "infinite": (HEAD + "a,0,loss,inf\n", ":2: column value: 'inf' is not a finite number"),
    "decimal comma": (HEAD + 'a,0,loss,"0,5"\n', "write 0.5"),
    "percent": (HEAD + "a,0,accuracy,98%\n", "write 0.98"),
    "comma": (HEAD + "a,0,loss,0,5\n", ":2: 5 cells under 4 columns"),
    "no seed": (HEAD + "a,,loss,1\n", ":2: column seed: is empty"),
    "seed": (HEAD + "a,first,loss,1\n", ":2: column seed: 'first' is not a whole number"),
    "arm": (HEAD + " ,0,loss,1\n", ":2: column arm: is empty"),
    "control": (HEAD + "a\x1b[31m,0,loss,1\n", ":2: column arm"),
    "twice": (HEAD + "a,0,loss,1\n\na,0,loss,1\n", ":4: loss of a at seed 0 stands twice, first on line 2"),
    "quotes": (HEAD + 'a,0,"loss,1\n', "check the quotes"),
    "one arm": (HEAD + "a,0,loss,1\na,1,loss,1\n", "one arm only, a"),
    "unknown": (HEAD + "a,0,bleu,1\nb,0,bleu,1\n", "--metric bleu:higher:difference"),
    "in percent": (
        HEAD + "a,0,accuracy,98\nb,0,accuracy,97\n",
        "line 2, column value: accuracy is a fraction",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_by_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, message = WRONG[case]
    path = tmp_path / "results.csv"
    path.write_text(content)
    assert main(["compare", str(path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


def test_all_mistakes_at_once_and_no_more_than_ten(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(HEAD + "a,x,loss,1\n" * 50)
    with pytest.raises(TableError) as error:
        read_table(path)
    assert len(str(error.value).splitlines()) == 10


def test_files_that_are_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "noise.csv").write_bytes(bytes(range(128, 256)))
    (tmp_path / "text.parquet").write_text(HEAD)
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("noise.csv", "not UTF-8"),
        ("text.parquet", "is no Parquet file"),
        ("folder.csv", "is a folder"),
        ("absent.csv", "no such file"),
        ("absent.parquet", "no such file"),
        ("results.xlsx", "end it with .csv"),
    ):
        assert main(["compare", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err, name


def test_too_many_rows(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.comparison.table.MOST_ROWS", 11)
    with pytest.raises(TableError, match="more than 11 rows"):
        read_table(write(rows()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metric", "acuracy"], "did you mean `accuracy`?"),
        (["--metric", "accuracy:up"], "'up' is no direction, scale or margin"),
        (["--metric", "accuracy:-1"], "'-1' is no direction, scale or margin"),
        (["--metric", "accuracy:lower:higher"], "two of direction"),
        (["--metric", "accuracy:1"], "margin 1 holds every difference between 0 and 1; write 1% as 0.01"),
        (["--metric", ":lower"], "no name"),
        (["--metric", "accuracy", "--metric", "accuracy"], "told twice"),
        (["--baseline", "rnn"], "baseline 'rnn' is no arm"),
        (["--confidence", "95"], "--confidence 95: write a share"),
    ],
)
def test_wrong_options(
    write: Callable[..., Path], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(write(rows())), *options]) == 2
    assert message in capsys.readouterr().err


def test_wrong_settings(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(rows())
    settings = path.with_name("how.yaml")
    settings.write_text(
        "baselin: mlp\nconfidence: 2\nmetrics:\n  - accuracy\n  - {name: loss, direction: upper}\n"
    )
    assert main(["compare", str(path), "--settings", str(settings)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"{settings}:1: baselin: unknown key; did you mean `baseline`?"
    assert lines[1].startswith(f"{settings}:2: confidence: 2 should be less than 1")
    assert lines[2].startswith(f"{settings}:5: metrics[1].direction: 'upper'")


def test_json(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(write(rows())), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert Comparison.model_validate(printed).metrics[0].contrasts[0].verdict == "better"


def test_looks_of_a_table(write: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    path = write(rows())
    settings = path.with_name("how.yaml")
    settings.write_text("looks: [6, 12]\nspending: pocock\n")
    table = compare(path, "--settings", str(settings))
    assert table.sequential is not None
    assert (table.sequential.look, table.metrics[0].contrasts[0].verdict) == (1, "inconclusive")
    for looks, message in (("[8, 12]", "6 seeds are none of the looks"), ("[12, 6]", "write them ascending")):
        settings.write_text(f"looks: {looks}\n")
        assert main(["compare", str(path), "--settings", str(settings)]) == 2
        assert message in capsys.readouterr().err


def test_all_pairs_and_the_bayesian_way_as_in_an_experiment(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    ups = [0.001, 0.002, 0.0015, 0.003, 0.001, 0.002, 0.0025, 0.001]
    base = [0.9 + 0.001 * seed for seed in range(8)]
    path = write(
        rows(
            a=base,
            b=[x + 0.03 + u for x, u in zip(base, ups, strict=True)],
            c=[x + 0.01 - u for x, u in zip(base, ups, strict=True)],
        )
    )
    (alone,) = compare(path).metrics
    assert not alone.between and all(one.posterior is None for one in alone.contrasts)
    settings = tmp_path / "settings.yaml"
    settings.write_text("contrasts: all\nbayesian: true\n")
    found = [compare(path, "--contrasts", "all", "--bayesian"), compare(path, "--settings", str(settings))]
    assert found[0] == found[1]
    (metric,) = found[0].metrics
    (between,) = metric.between
    assert (between.arm, between.baseline, between.verdict) == ("c", "b", "worse")
    everyone = [*metric.contrasts, between]
    assert all(one.posterior is not None for one in everyone)
    assert [one.test.p_adjusted for one in metric.contrasts if one.test] == pytest.approx([3 * 2 / 2**8] * 2)
