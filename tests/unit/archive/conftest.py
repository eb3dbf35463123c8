"""A finished experiment and its archive, made without training."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from made_archive import Whole, sources_of

from assay.archive import zipped
from assay.archive.gather import Sources
from assay.archive.reading import contents
from assay.archive.run import archive
from assay.archive.verify import Verified, verify
from assay.records import sha256_bytes
from assay.reporting import figures, run, timelines


@contextmanager
def two_figures() -> Iterator[None]:
    """Two figures instead of all: drawing takes the longest."""
    with pytest.MonkeyPatch.context() as patch:
        drawn = tuple(plot for plot in figures.plots() if plot.name in ("paired-slopes", "training-loss"))
        patch.setattr(figures, "plots", lambda: drawn)
        patch.setattr(timelines, "plots", lambda _: ())
        yield


@pytest.fixture(autouse=True)
def few_figures() -> Iterator[None]:
    """For the length of a test: those that other folders have draw all."""
    with two_figures():
        yield


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Finished results; shared: do not change them."""
    folder = tmp_path_factory.mktemp("finished")
    results = Whole(folder, seeds=3, blocks=2, batch_sizes=(1,)).make()
    with two_figures():
        run.report(results=results, output=results / "report")
    return sources_of(folder)


@pytest.fixture(scope="session")
def packed(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their archive; shared."""
    path = tmp_path_factory.mktemp("archive") / "digits.crate.zip"
    archive(sources=sources, output=path)
    return path


@pytest.fixture(scope="session")
def unpacked(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in it; shared."""
    folder = tmp_path_factory.mktemp("unpacked") / "crate"
    with contents(packed) as found:
        shutil.copytree(found.root, folder)
    return folder


Forge = Callable[[Callable[[Path], None]], Verified]


@pytest.fixture
def forge(unpacked: Path, tmp_path: Path) -> Forge:
    """Change something in an archive, make its checksums anew as a careful forger does, and verify it."""

    def forged(change: Callable[[Path], None], *, sums: bool = True) -> Verified:
        root = tmp_path / "crate"
        shutil.copytree(unpacked, root)
        change(root)
        files = {
            path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()
        }
        del files["SHA256SUMS"]
        if sums:
            lines = [f"{sha256_bytes(path.read_bytes())}  {place}\n" for place, path in files.items()]
            (root / "SHA256SUMS").write_text("".join(lines))
        path = tmp_path / "forged.crate.zip"
        zipped.write(path, {**files, "SHA256SUMS": root / "SHA256SUMS"})
        return verify(path)

    return forged  # type: ignore[return-value]
