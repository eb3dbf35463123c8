"""The settings that a job is given: as text, or where a sweep chose them."""

import json
from pathlib import Path
from typing import Any

from assay.records import RecordError


def goes_on(text: str) -> bool:
    """Whether a sweep lets a trial go on.

    text: `FILE#N`, what the sweep left where it compared trials, and the trial.

    Raises: RecordError naming the file and what is wrong with it.
    """
    name, _, trial = text.partition("#")
    try:
        return int(trial) in json.loads(Path(name).read_bytes())["goes_on"]
    except FileNotFoundError:
        raise RecordError(f"{name}: no such file; run the experiment again") from None
    except (ValueError, KeyError, TypeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise RecordError(
            f"{name}: names no trials ({what}); remove it and run the experiment again"
        ) from None


def given_settings(text: str) -> dict[str, Any]:
    """The settings of an arm, from JSON, or from a file that a sweep left.

    text: JSON; `@FILE` for what a sweep selected; `@FILE#N` for the trial N that it proposed.

    Raises: RecordError naming the file and what is wrong with it.
    """
    if not text.startswith("@"):
        found: dict[str, Any] = json.loads(text)
        return found
    name, _, trial = text[1:].partition("#")
    try:
        content = json.loads(Path(name).read_bytes())
        if trial:
            content = next(one for one in content["trials"] if one["number"] == int(trial))
        settings = content["settings"]
    except FileNotFoundError:
        raise RecordError(f"{name}: no such file; run the experiment again") from None
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        what = f"{type(error).__name__}: {error}"
        raise RecordError(
            f"{name}: has no settings ({what}); remove it and run the experiment again"
        ) from None
    if not isinstance(settings, dict):
        raise RecordError(f"{name}: settings: not a section; remove it and run the experiment again")
    return settings
