"""What the judge and drift remember for the next controller: an object in a JSON file."""

from pathlib import Path
from typing import Any

import orjson


class DamagedMemory(ValueError):
    """What is there is none: it is made anew from the logs."""


def remembered(path: Path) -> dict[str, Any] | None:
    """None: nothing yet. Raises: DamagedMemory."""
    try:
        content = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise damaged(path, str(error)) from None
    if not isinstance(content, dict):
        raise damaged(path, f"holds {type(content).__name__}, not an object")
    return content


def damaged(path: Path, why: str) -> DamagedMemory:
    return DamagedMemory(f"memory: {path}: damaged ({why}); made anew from the logs that are kept")
