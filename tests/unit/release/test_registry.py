"""The registry in a folder: versions, aliases, and a record that cannot be changed unseen."""

import fcntl
import json
import multiprocessing
import shlex
import shutil
from pathlib import Path

import pytest

from assay.cli import main
from assay.release.bundle.read import BundleError, read
from assay.release.document import ROOT
from assay.release.load import EXAMPLE, load
from assay.release.registry.history import History
from assay.release.registry.store import Registry, RegistryError, open_registry
from assay.release.schema import Registry as Settings


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry(Settings(model="digits", uri=str(tmp_path / "registry")))


def test_versions_and_aliases(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    first, second = registry.register(bundle, "the winner"), registry.register(other_bundle)
    assert registry.register(bundle) == first, "again changes nothing"
    assert (
        registry.versions()
        == [first, second]
        == [read(one).manifest.version for one in (bundle, other_bundle)]
    )
    assert registry.aliases() == {}
    assert registry.move("champion", first, "it won") is None
    assert registry.move("candidate", second, "to be tried") is None
    assert registry.move("champion", second, "it went well", release="r1") == first
    assert registry.aliases() == {"champion": second, "candidate": second}
    assert registry.remove("candidate", "it is champion") == second
    assert registry.remove("candidate", "twice is once") is None
    assert registry.aliases() == {"champion": second}
    told = [(entry.event, entry.version, entry.alias, entry.previous) for entry in registry.history.read()]
    assert told == [
        ("registered", first, None, None),
        ("registered", second, None, None),
        ("alias", first, "champion", None),
        ("alias", second, "candidate", None),
        ("alias", second, "champion", first),
        ("alias", None, "candidate", second),
    ]
    assert registry.history.read()[4].reason == "it went well" and registry.history.read()[4].release == "r1"


def test_the_copy_is_its_own_and_checked(registry: Registry, bundle: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(bundle, tmp_path / "mine"))
    (mine / "code" / "__pycache__").mkdir()
    (mine / "code" / "__pycache__" / "x.pyc").write_bytes(b"x")
    version = registry.register(mine)
    shutil.rmtree(mine)
    registry.move("champion", version, "")
    folder = registry.resolve("@champion")
    assert registry.resolve(version) == registry.resolve(f"@{version}") == folder
    assert read(folder).manifest.version == version and not list(folder.rglob("*.pyc"))
    assert registry.resolve("some/folder") == Path("some/folder")
    (folder / "reference.json").write_text("{}")
    with pytest.raises(
        BundleError, match=r"reference\.json: was changed.* which replaces this copy: assay rel"
    ):
        registry.resolve("@champion")


def test_a_damaged_copy_is_replaced_as_its_error_says(
    registry: Registry, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    version = registry.register(bundle)
    registry.move("champion", version, "")
    (registry.place.version(version) / "model.safetensors").write_bytes(b"x")
    with pytest.raises(BundleError) as caught:
        registry.resolve("@champion")
    command = str(caught.value).rpartition("assay ")[2].replace("BUNDLE", shlex.quote(str(bundle)))
    assert main(shlex.split(command)) == 0
    assert read(registry.resolve("@champion")).manifest.version == version
    assert [path.name for path in registry.place.version(version).parent.iterdir()] == [version]


def test_a_copy_under_a_wrong_name_is_refused(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    first, second = registry.register(bundle), registry.register(other_bundle)
    shutil.rmtree(registry.place.version(first))
    registry.place.version(second).rename(registry.place.version(first))
    with pytest.raises(RegistryError, match="holds another version"):
        registry.resolve(first)


def test_what_is_not_there_is_named(registry: Registry, bundle: Path) -> None:
    with pytest.raises(
        RegistryError,
        match="no alias 'champion', and no version; set it: assay release registry add BUNDLE --al",
    ):
        registry.resolve("@champion")
    with pytest.raises(RegistryError, match="it has none"):
        registry.move("champion", "0" * 16, "")
    registry.register(bundle)
    wrong = dict.fromkeys(("Champion", "../x", ""), "write small letters") | {"latest": "MLflow keeps it"}
    for alias, words in wrong.items():
        with pytest.raises(RegistryError, match=words):
            registry.move(alias, read(bundle).manifest.version, "")
    for uri, words in [
        ("sqlite:///x.db", "needs more than MLflow's client"),
        ("file:///x", "write the folder alone"),
        ("ftp://x", "is not known"),
    ]:
        with pytest.raises(RegistryError, match=words):
            open_registry(Settings(model="m", uri=uri))


def test_a_broken_bundle_is_not_registered(registry: Registry, bundle: Path, tmp_path: Path) -> None:
    mine = Path(shutil.copytree(bundle, tmp_path / "mine"))
    (mine / "model.safetensors").write_bytes(b"")
    with pytest.raises(BundleError, match="was changed"):
        registry.register(mine)
    assert registry.versions() == [] and registry.history.read() == []


def test_who_was_served_what(registry: Registry, bundle: Path) -> None:
    version = registry.register(bundle)
    registry.serves(version, release="r", role="candidate", share=0.1, reason="step 2 of 4")
    registry.serves(version, release="r", role="candidate", share=None, reason="rolled back: errors")
    entries = registry.history.read()[1:]
    assert [(entry.role, entry.share, entry.reason) for entry in entries] == [
        ("candidate", 0.1, "step 2 of 4"),
        ("candidate", None, "rolled back: errors"),
    ]
    assert entries[0].timestamp < entries[1].timestamp


@pytest.mark.parametrize("change", ["edit", "drop", "swap", "garbage"])
def test_a_changed_record_is_seen(tmp_path: Path, change: str) -> None:
    history = History(tmp_path / "history.jsonl")
    for number in range(4):
        history.append("serves", f"{number:016}", role="stable", share=number / 4, release="r")
    lines = history.path.read_text().splitlines()
    if change == "edit":
        lines[1] = lines[1].replace("0.25", "0.75")
    elif change == "drop":
        del lines[1]
    elif change == "swap":
        lines[1:3] = lines[2:0:-1]
    else:
        lines[2] = "{"
    history.path.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"history\.jsonl:[23]: .*the record was changed"):
        history.read()


def test_a_line_that_a_killed_writer_left_half_is_no_entry(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.append("registered", "a" * 16)
    with history.path.open("a") as file:
        file.write('{"timestamp": "2026-')
    assert [entry.version for entry in history.read()] == ["a" * 16]
    history.append("registered", "b" * 16)
    assert [entry.version for entry in history.read()] == ["a" * 16, "b" * 16]


def test_the_record_is_on_the_disk_when_it_is_written(tmp_path: Path, synced: dict[Path, bytes]) -> None:
    history = History(tmp_path / "history.jsonl")
    for share in (0.1, 0.5):
        history.append("serves", "a" * 16, role="candidate", share=share, release="r")
        assert synced[history.path] == history.path.read_bytes()


def test_a_line_may_be_long(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    for reason in ("ä" * 100_000, "b", "c"):
        history.append("registered", "a" * 16, reason=reason)
    assert [len(entry.reason) for entry in history.read()] == [100_000, 1, 1]


def test_a_copy_is_on_the_disk_when_it_is_there(
    registry: Registry, bundle: Path, synced: dict[Path, bytes]
) -> None:
    folder = registry.place.version(registry.register(bundle))
    flushed = {path.name: content for path, content in synced.items()}
    for path in folder.rglob("*"):
        assert path.is_dir() or path.name in flushed
    assert flushed["model.safetensors"] == (bundle / "model.safetensors").read_bytes()


def _write(path: Path, writer: int) -> None:
    for number in range(25):
        History(path).append("serves", f"{writer}", release="r", role="stable", share=number / 25)


def test_two_writers_at_once_each_have_all_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(path, writer)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
        assert process.exitcode == 0
    entries = History(path).read()
    for writer in range(2):
        assert [entry.share for entry in entries if entry.version == str(writer)] == [
            n / 25 for n in range(25)
        ]


def _register(uri: str, bundle: Path, alias: str) -> None:
    registry = open_registry(Settings(model="digits", uri=uri))
    registry.move(alias, registry.register(bundle), "")


def test_two_that_register_and_move_at_once(registry: Registry, bundle: Path, other_bundle: Path) -> None:
    uri = str(registry.place.folder.parent)
    context = multiprocessing.get_context("fork")
    asked = [(bundle, "a"), (bundle, "b"), (other_bundle, "c"), (other_bundle, "d")]
    processes = [context.Process(target=_register, args=(uri, *one)) for one in asked]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    first, second = (read(one).manifest.version for one in (bundle, other_bundle))
    assert registry.aliases() == {"a": first, "b": first, "c": second, "d": second}
    assert len([entry for entry in registry.history.read() if entry.event == "registered"]) == 2


def test_one_change_at_a_time(
    registry: Registry, bundle: Path, other_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads the aliases to write them again must be alone meanwhile, or the other's alias is lost."""
    alone = []

    def look() -> None:
        with (registry.place.folder / ".change.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                alone.append(True)

    aliases, add = registry.backend.aliases, registry.backend.add
    monkeypatch.setattr(registry.backend, "aliases", lambda: (look(), aliases())[1])
    monkeypatch.setattr(registry.backend, "add", lambda given: (look(), add(given))[1])
    version = registry.register(bundle)
    assert len(alone) == 1
    registry.move("champion", version, "")
    moved = len(alone)
    registry.remove("champion", "")
    assert 1 < moved < len(alone)


def test_the_record_is_on_the_disk_before_the_alias_moves(
    registry: Registry, bundle: Path, other_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backend that refuses: the record says that it was to move, and that it did not."""
    first, second = registry.register(bundle), registry.register(other_bundle)
    registry.move("champion", first, "")

    def refuse(alias: str, version: str | None) -> None:
        assert registry.history.read()[-1].version == second, "it stands there already"
        raise RegistryError("the server is down")

    monkeypatch.setattr(registry.backend, "move", refuse)
    with pytest.raises(RegistryError, match="the server is down"):
        registry.move("champion", second, "promoted")
    last = registry.history.read()[-1]
    assert (last.version, last.previous, last.reason) == (first, second, "not moved: the server is down")
    assert registry.aliases() == {"champion": first}


def test_the_command(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    version = read(bundle).manifest.version

    def said(*words: str, status: int = 0) -> str:
        assert main(["release", "registry", *words]) == status
        captured = capsys.readouterr()
        return captured.out if status == 0 else captured.err

    assert "has no model yet; add one: assay release registry add BUNDLE" in said("list", status=2)
    assert version in said("add", str(bundle), "--alias", "champion", "--reason", "won")
    assert said("list") == f"{version}  @champion\n"
    assert f"@champion: none → {version}  (won)" in said("show", "@champion")
    assert json.loads(said("history", "--json").splitlines()[0])["event"] == "registered"
    assert said("alias", "candidate", "@champion") == f"@candidate: none → {version}\n"
    assert said("alias", "candidate") == f"@candidate: {version} → none\n"
    assert "has no version 'zzz'" in said("alias", "candidate", "zzz", status=2)
    assert (tmp_path / "releases/registry/digits/versions" / version / "bundle.json").exists()


def test_two_arms_of_an_experiment_are_versions_of_one_model_as_the_example_expects(
    bundle: Path, other_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of docs/release.md, then its release file."""
    monkeypatch.chdir(tmp_path)
    for folder, alias in ((bundle, "champion"), (other_bundle, "candidate")):
        assert main(["release", "registry", "add", str(folder), "--alias", alias, "--reason", "so"]) == 0
    registry = open_registry(load(ROOT / EXAMPLE).registry)
    found = [registry.resolve(f"@{alias}").name for alias in ("champion", "candidate")]
    assert found == [read(folder).manifest.version for folder in (bundle, other_bundle)]


def test_an_alias_that_is_missing_is_set_by_the_command_that_its_error_shows(
    registry: Registry, bundle: Path
) -> None:
    version = registry.register(bundle)
    with pytest.raises(RegistryError) as caught:
        registry.resolve("@champion")
    assert main(shlex.split(str(caught.value).rpartition("assay ")[2])) == 0
    assert registry.resolve("@champion").name == version
