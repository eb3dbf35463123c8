"""Which release is meant: by its name, its folder, its file, or as the only one there is."""

from pathlib import Path

import yaml
from pydantic import ValidationError

from assay.config.errors import nearest
from assay.release.layout import Layout
from assay.release.load import load
from assay.release.ramp.journal import Journal
from assay.release.schema import Release

DEFAULT = Path("releases")


class NoRelease(ValueError):
    """There is none of that name."""


def find(given: str | None) -> Layout:
    """Raises: NoRelease."""
    if given is None:
        return Layout(_only(DEFAULT))
    path = Path(given)
    if path.is_file():
        release = load(path)
        path = Path(release.folder) / release.name
    elif not path.is_dir() and (DEFAULT / given).is_dir():
        path = DEFAULT / given
    layout = Layout(path)
    if not layout.journal.exists():
        raise NoRelease(f"{given}: no release has begun there; {_known(DEFAULT, given)}")
    return layout


def resolved(layout: Layout) -> Release:
    """The release as it began. Raises: NoRelease."""
    try:
        return Release.model_validate(yaml.safe_load(layout.resolved.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NoRelease(f"{layout.folder}: no release has begun there") from None
    except (ValidationError, yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise NoRelease(f"{layout.resolved}: damaged or of another version of Assay: {what[:300]}") from None


def begun(folder: Path) -> list[Path]:
    """Folders of releases."""
    return sorted(path for path in folder.glob("*") if Layout(path).journal.exists())


def _only(folder: Path) -> Path:
    found = begun(folder)
    if len(found) > 1:
        found = [path for path in found if not _succeeded(path)]
    if len(found) != 1:
        raise NoRelease(f"name a release: {_known(folder, '')}")
    return found[0]


def _succeeded(folder: Path) -> bool:
    """Whether another release serves its users."""
    try:
        last = Journal(Layout(folder)).last()
    except ValueError:
        return False
    return last is not None and last.state.successor is not None


def _known(folder: Path, given: str) -> str:
    names = [path.name for path in begun(folder)]
    guess = nearest(given, names)
    if guess:
        return f"did you mean `{guess}`?"
    if names:
        return f"{folder}/ has {', '.join(names)}"
    return f"{folder}/ here has none; begin one: assay release start FILE"
