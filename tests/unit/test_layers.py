"""Data flows one way: a package never imports one to its right."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "assay"
LINE = [
    "image",
    "slurm",
    "health",
    "telemetry",
    "data",
    "models",
    "training",
    "sweep",
    "evaluation",
    "profiling",
    "tracing",
    "comparison",
    "reporting",
    "archive",
    "gate",
    "tracking",
    "monitoring",
    "release",
]
BELOW_ALL = ["records", "clock", "holding", "config", "sources", "environment", "registry", "isolation"]


def imported(path: Path) -> Iterator[str]:
    """Names of the parts of the package that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [node.module or ""]
            if node.module == "assay":
                names = [f"assay.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("assay."))


def violations(source: Path) -> list[str]:
    found = []
    for path in sorted(source.rglob("*.py")):
        part = path.relative_to(source).parts[0].removesuffix(".py")
        for name in imported(path):
            upwards = part in LINE and name in LINE and LINE.index(name) > LINE.index(part)
            if upwards or (part in BELOW_ALL and name in LINE):
                found.append(f"{path.relative_to(source)} imports {name}")
    return found


def test_no_package_imports_one_to_its_right() -> None:
    assert violations(SOURCE) == []


@pytest.mark.parametrize(
    ("part", "name"), [("training", "reporting"), ("records", "data"), ("config", "models")]
)
def test_the_check_sees_a_violation(part: str, name: str, tmp_path: Path) -> None:
    (tmp_path / part).mkdir()
    (tmp_path / part / "x.py").write_text(f"def f():\n    from assay.{name}.run import g\n    return g\n")
    assert violations(tmp_path) == [f"{part}/x.py imports {name}"]


def test_every_package_has_its_place() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages <= {*LINE, *BELOW_ALL}
