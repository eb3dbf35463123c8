"""Environments of versions, really made: from a lock by the set-up, and as an image by Apptainer."""

import os
import re
import signal
import subprocess
import sys
import time
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from oci_registry import MISSING

from assay.image.recipe import Place as Image
from assay.release.bundle.read import read
from assay.release.environments.place import name_of
from assay.release.environments.prepare import prepare
from assay.release.environments.prune import prune

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SMALL = ("idna", "typing-extensions")
PATIENCE = 180.0
GOLDEN = """
import sys, torch, assay
from pathlib import Path
from assay.release.bundle.read import read
import assay.release.server.group
bundle = read(Path(sys.argv[1]))
print(bundle.problem(bundle.network()(torch.from_numpy(bundle.golden()[0])).numpy()), assay.__file__, sys.prefix)
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sys.path.insert(0, str(ROOT / "tests/unit/release"))
    from made_bundle import made_results

    return made_results(tmp_path_factory.mktemp("results"), seeds=1)


@pytest.fixture(scope="module")
def small_lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small packages of the server's lock: an environment in seconds."""
    locked = (ROOT / "requirements/serve.txt").read_text().replace("\\\n", "\0").splitlines()
    kept = [line for line in locked if line.split("==")[0] in SMALL]
    assert len(kept) == len(SMALL)
    path = tmp_path_factory.mktemp("lock") / "small.txt"
    path.write_text("\n".join(kept).replace("\0", "\\\n") + "\n")
    return path


def bundle_of(results: Path, folder: Path, **asked: Path) -> Path:
    from made_bundle import made_bundle

    return made_bundle(results, folder=folder, **asked)


def test_two_that_ask_at_once_get_one_and_it_has_what_is_locked(
    results: Path, small_lock: Path, tmp_path: Path
) -> None:
    bundle = bundle_of(results, tmp_path / "bundle", requirements=small_lock)
    root = tmp_path / "environments"
    script = (
        "import sys; from pathlib import Path; from assay.release.environments.prepare import prepare\n"
        "print(prepare('venv', Path(sys.argv[1]), Path(sys.argv[2])).name)"
    )
    command = [sys.executable, "-P", "-c", script, str(bundle), str(root)]
    variables = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    (tmp_path / "venv.py").write_text("raise SystemExit('a file of the user, not of Python')\n")
    both = [
        subprocess.Popen(
            command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
        for _ in range(2)
    ]
    said = [asker.communicate(timeout=600) for asker in both]
    assert [out for out, _ in said] == [f"{name_of('venv', bundle)}\n"] * 2, said
    assert sum("ready after" in text for _, text in said) == 1, "made once"

    environment = prepare("venv", bundle, root)
    assert environment.place is not None and environment.lease is not None
    look = "import idna, sys, importlib.util as u; print(sys.prefix, u.find_spec('pydantic'), u.find_spec('assay').origin)"
    words, variables = environment.command(bundle, ["-c", look], {**os.environ, "PYTHONPATH": "/elsewhere"})
    done = subprocess.run(words, env=variables, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.split() == [
        str(environment.place.folder),
        "None",
        str(bundle / "code/assay/__init__.py"),
    ]
    assert read(bundle), "running from it left nothing there"

    # A child that inherited the lease keeps it, when this process has let it go.
    words, variables = environment.command(bundle, ["-c", "print('up', flush=True); input()"], os.environ)
    child = subprocess.Popen(
        words, env=variables, pass_fds=[environment.lease], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"up\n"
    environment.close()
    gone, stayed = prune(root, dict)
    assert gone == [] and "in use by a process" in stayed[0].reasons
    child.communicate(b"\n", timeout=300)
    gone, _ = prune(root, dict)
    assert [one.place.name for one in gone] == [environment.name] and list(root.iterdir()) == []


def test_a_lock_whose_hashes_do_not_hold_makes_nothing(
    results: Path, small_lock: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "wrong.txt"
    text = small_lock.read_text()
    digests = [word[len("--hash=sha256:") :] for word in text.split() if word.startswith("--hash=sha256:")]
    for digest in digests:
        text = text.replace(digest, digest[::-1])
    lock.write_text(text)
    bundle = bundle_of(results, tmp_path / "bundle", requirements=lock)
    with pytest.raises(ValueError, match="could not be made"):
        prepare("venv", bundle, tmp_path / "environments")
    gone, _ = prune(tmp_path / "environments", dict)
    assert len(gone) == 1 and gone[0].about is None, "what is left of it is known to be unfinished, and goes"


@pytest.mark.skipif(find_spec("ensurepip") is None, reason="install python3-venv: there is no pip otherwise")
def test_conda_gives_pip_what_pip_takes(results: Path, small_lock: Path, tmp_path: Path) -> None:
    """conda writes the lines of `pip` into a file beside environment.yml, and starts pip of the new environment there."""
    venv.create(tmp_path / "new", with_pip=True)
    bundle = bundle_of(results, tmp_path / "bundle", requirements=small_lock)
    folder = bundle / "environment"
    lines = yaml.safe_load((folder / "environment.yml").read_bytes())["dependencies"][-1]["pip"]
    written = folder / "condaenv.requirements.txt"
    written.write_text("\n".join(lines) + "\n")
    target = tmp_path / "installed"
    command = [
        str(tmp_path / "new/bin/python"),
        "-m",
        "pip",
        "install",
        "--target",
        str(target),
        "-U",
        "-r",
        str(written),
    ]
    subprocess.run([*command, "--exists-action=b"], cwd=folder, check=True)
    assert {"idna", "typing_extensions.py"} <= {path.name for path in target.iterdir()}
    lock = folder / "requirements.txt"
    lock.write_text(re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", lock.read_text()))
    done = subprocess.run([*command, "--no-cache-dir"], cwd=folder, capture_output=True, text=True)
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr


def test_the_lock_of_a_server_is_all_that_a_server_needs(results: Path, tmp_path: Path) -> None:
    """The whole lock, PyTorch included; nothing of this environment is seen."""
    bundle = bundle_of(results, tmp_path / "bundle")
    environment = prepare("venv", bundle, tmp_path / "environments")
    words, variables = environment.command(bundle, ["-c", GOLDEN, str(bundle)], os.environ)
    done = subprocess.run(words, env=variables, capture_output=True, text=True, cwd=tmp_path)
    assert environment.place is not None
    assert done.stdout.split() == [
        "None",
        f"{bundle}/code/assay/__init__.py",
        str(environment.place.folder),
    ], done.stderr
    environment.close()


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_an_image_is_that_of_the_run_with_the_lock_on_it(
    results: Path, small_image: Image, small_lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_IMAGES", str(small_image.folder.parent))
    lock = tmp_path / "more.txt"
    locked = (ROOT / "requirements/serve.txt").read_text().replace("\\\n", "\0").splitlines()
    more = [line for line in locked if line.startswith("h11==")]
    lock.write_text(small_lock.read_text() + "\n".join(more).replace("\0", "\\\n") + "\n")
    bundle = bundle_of(results, tmp_path / "bundle", requirements=lock, image_lock=small_image.lock)
    root = tmp_path / "environments"
    environment = prepare("apptainer", bundle, root)
    assert environment.place is not None and environment.name == name_of("apptainer", bundle)
    added = {path.name for path in (environment.place.folder / "packages").iterdir()}
    assert "h11" in added and "idna" not in added, "what the image has is not installed again"
    monkeypatch.setenv("PLANTED", "of the host")
    look = (
        "import h11, idna, os, sys, importlib.util as u; "
        "print(sys.prefix, u.find_spec('assay').origin, os.environ.get('PLANTED'), os.environ['ASKED']); input()"
    )
    words, variables = environment.command(bundle, ["-c", look], {**os.environ, "ASKED": "for"})
    child = subprocess.Popen(
        words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert child.stdout is not None
    found = child.stdout.readline().split()
    assert found == ["/opt/assay/environment", str(bundle / "code/assay/__init__.py"), "None", "for"]
    environment.close()
    gone, stayed = prune(root, dict)
    assert gone == [] and any(reason.startswith("process ") for reason in stayed[0].reasons)
    child.communicate("\n", timeout=300)
    before = environment.place.sif.lstat()
    prepare("apptainer", bundle, root).close()
    assert environment.place.sif.lstat().st_mtime_ns == before.st_mtime_ns, "made once"
    deadline = time.monotonic() + 120
    while not (gone := prune(root, dict)[0]):  # what mounted the image ends after who ran in it
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [one.place.name for one in gone] == [environment.name] and list(root.iterdir()) == []


ORPHAN = """
import os, sys
if os.fork() == 0:
    print(os.getpid(), os.getppid(), flush=True)
    sys.stdin.readline()
    import decimal, fractions, tomllib
    print("read", flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
def test_an_image_stays_as_long_as_any_process_is_in_it(
    results: Path, small_image: Image, small_lock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As gunicorn's workers, which answer on when their master was killed."""
    monkeypatch.setenv("ASSAY_IMAGES", str(small_image.folder.parent))
    bundle = bundle_of(results, tmp_path / "bundle", requirements=small_lock, image_lock=small_image.lock)
    environment = prepare("apptainer", bundle, tmp_path / "environments")
    words, variables = environment.command(bundle, ["-c", ORPHAN], os.environ)
    with subprocess.Popen(
        words, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path
    ) as running:
        assert running.stdout is not None and running.stdin is not None
        orphan, parent = map(int, running.stdout.readline().split())
        os.kill(parent, signal.SIGKILL)
        until = time.monotonic() + PATIENCE
        while Path(f"/proc/{parent}").exists():
            assert time.monotonic() < until, "who was killed is reaped"
            time.sleep(0.05)
        keeper = int(Path(f"/proc/{orphan}/stat").read_text().rpartition(")")[2].split()[1])
        assert keeper != 1 and b"PR_SET_CHILD_SUBREAPER" in Path(f"/proc/{keeper}/cmdline").read_bytes()
        assert running.poll() is None, "the image is there still"
        running.stdin.write("\n")
        running.stdin.close()
        assert running.stdout.readline() == "read\n"
        assert running.wait(PATIENCE) == 256 - signal.SIGKILL, "its end is that of what was asked for"
    environment.close()
