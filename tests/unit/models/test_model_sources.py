"""Which of the user's files stand behind a model."""

import subprocess
import sys
from pathlib import Path

import pytest

from assay.models.builtin import BUILTINS
from assay.models.errors import ModelError
from assay.models.sources import BUILTIN, check_source, source_files


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / (name.replace("__slash__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(root: Path, source: str) -> list[str]:
    return [path.relative_to(root).as_posix() for path in source_files(source, [root])]


@pytest.mark.parametrize(
    "source", ["builtin:mlp", "torchvision:resnet18", "timm:resnet18", "digits", "folder"]
)
def test_a_librarys_model_has_no_files(source: str) -> None:
    assert source_files(source, [Path()]) == []


def test_imports_are_followed_and_installed_ones_are_not(tmp_path: Path) -> None:
    write(
        tmp_path,
        net="import torch, json\nimport layers\nfrom blocks import Block\n",
        layers="def f():\n    import deep\n",
        blocks="import net  # a cycle\n",
        deep="",
        unrelated="",
        json="",
    )
    assert names(tmp_path, "net:model") == ["blocks.py", "deep.py", "layers.py", "net.py"]


def test_packages_and_relative_imports(tmp_path: Path) -> None:
    write(
        tmp_path,
        pack__slash____init__="from .exported import thing\n",
        pack__slash__exported="",
        pack__slash__sub__slash____init__="",
        pack__slash__sub__slash__net="from . import near\nfrom ..far import g\nfrom .. import beside\n",
        pack__slash__sub__slash__near="from .nearer import *\n",
        pack__slash__sub__slash__nearer="",
        pack__slash__far="import pack.sub.last\n",
        pack__slash__beside="",
        pack__slash__sub__slash__last="",
        pack__slash__unused="",
    )
    found = set(names(tmp_path, "pack.sub.net:model"))
    everything = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py")}
    assert found == everything - {"pack/unused.py"}


def test_star_imports_modules_named_in_all(tmp_path: Path) -> None:
    write(
        tmp_path,
        net="from pack import *\n",
        pack__slash____init__='__all__ = ["one", "value"]\n',
        pack__slash__one="",
        pack__slash__two="",
    )
    assert names(tmp_path, "net:model") == ["net.py", "pack/__init__.py", "pack/one.py"]


def test_folders_without_init_and_roots_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write(first, net="import shared\n")
    write(second, net="", shared="", plain__slash__inner="import shared\n")
    assert source_files("net:f", [first, second]) == [first / "net.py", second / "shared.py"]
    assert source_files("plain.inner:f", [first, second]) == [second / "plain/inner.py", second / "shared.py"]


def test_paths_start_with_the_root_as_given_and_come_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, config__slash__net="import config.net\n")
    monkeypatch.chdir(tmp_path)
    assert source_files("net:f", [Path("config"), Path()]) == [Path("config/net.py")]


def test_a_missing_module_names_the_folders_and_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, models="", pack__slash__network="")
    with pytest.raises(ModelError, match=rf"no file model\.py in '{tmp_path}'; did you mean 'models'\?"):
        source_files("model:f", [tmp_path])
    with pytest.raises(ModelError, match=r"no file pack/netwrk\.py .* did you mean 'pack\.network'\?"):
        source_files("pack.netwrk:f", [tmp_path])
    with pytest.raises(ValueError, match=r"no file models\.py in no folder"):
        source_files("models:f", [])


def test_a_name_of_pythons_own_library_is_refused(tmp_path: Path) -> None:
    write(tmp_path, random="")
    with pytest.raises(ModelError, match="rename your file"):
        source_files("random:f", [tmp_path])


@pytest.mark.parametrize(("text", "message"), [("def f(:\n", r"net\.py:1: "), ("\0", r"net\.py")])
def test_a_file_that_is_not_python_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, net=text)
    with pytest.raises(ModelError, match=message):
        source_files("net:f", [tmp_path])


def test_nothing_is_imported(tmp_path: Path) -> None:
    write(tmp_path, net="raise SystemExit('imported')\n")
    program = (
        "import sys; from pathlib import Path; from assay.models.sources import source_files\n"
        f"assert source_files('net:f', [Path({str(tmp_path)!r})])\n"
        "assert not {'torch', 'numpy', 'pydantic', 'net'} & set(sys.modules)"
    )
    source = Path(sys.modules["assay"].__path__[0]).parent
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": str(source)})


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("builtin:mpl", "did you mean 'mlp'"),
        ("own:nte", "no function 'nte'; did you mean 'net'"),
        ("onw:net", r"no file onw\.py in .*; did you mean 'own'"),
    ],
)
def test_what_is_not_there_is_told_without_importing(source: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("raise SystemExit\ndef net(): ...\n")
    with pytest.raises(ModelError, match=said):
        check_source(source, [tmp_path])
    check_source("own:net", [tmp_path])


@pytest.mark.parametrize(
    "text",
    [
        "net = make()",
        "from x import net",
        "from x import y as net",
        "from x import *",
        "if 1:\n  def net(): ...",
        "def __getattr__(name): ...",
        "for net in (): ...",
        "import net.deeper",
        "globals()['net'] = 3",
    ],
)
def test_what_may_be_there_is_left_to_the_job(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text + "\n")
    check_source("own:net", [tmp_path])


def test_the_names_of_the_built_in_networks_are_theirs() -> None:
    assert set(BUILTIN) == set(BUILTINS)
