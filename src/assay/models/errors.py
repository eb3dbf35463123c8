"""What is wrong with a model's settings, and what to write instead."""

import traceback
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path


class ModelError(ValueError):
    """A model that cannot be found, built or used on the data. The text names the setting to change."""


class SizeError(ModelError):
    """A model that does not fit the images, and may fit ones of another size."""


def suggestion(name: str, known: Collection[str]) -> str:
    """`; did you mean 'resnet18'?`, or nothing where no known name is near."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(name.casefold(), by_folded, n=1, cutoff=0.5)
    return f"; did you mean '{by_folded[near[0]]}'?" if near else ""


def described(error: Exception) -> str:
    """The error, and the innermost line of the user's code where it was raised."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    first_line = str(error).strip().partition("\n")[0]
    text = f"{type(error).__name__}: {first_line}"
    foreign = (str(Path(__file__).parents[1]), "site-packages", "dist-packages", "<frozen", "/lib/python")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not any(part in frame.filename for part in foreign):
            return f"{text} ({frame.filename}:{frame.lineno})"
    return text
