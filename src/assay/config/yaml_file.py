"""Reading YAML so that errors can say the line: safe, without duplicate keys."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from assay.config.errors import ConfigError, Problem, dotted
from assay.config.errors import Path as KeyPath

Lines = dict[KeyPath, int]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path) -> tuple[dict[str, Any], Lines]:
    """The file as a mapping, and the line of every key.

    Raises: ConfigError for a file that is missing, not UTF-8, not YAML, not a mapping, or names a key twice.
    """
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise _refuse(file, "no such file", "give the path of an experiment file") from None
    except IsADirectoryError:
        raise _refuse(file, "is a folder", "give the path of an experiment file") from None
    except UnicodeDecodeError as error:
        raise _refuse(file, f"not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except OSError as error:
        raise _refuse(
            file, f"cannot be read: {error.strerror}", "check the path and its permissions"
        ) from None
    lines: Lines = {}
    problems: list[Problem] = []
    try:
        root = yaml.compose(text, Loader=_Loader)
        if isinstance(root, yaml.MappingNode):
            _walk(root, (), lines, problems, set())
        if problems:
            raise ConfigError(file, problems)
        content = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(file, error) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise _refuse(file, f"not YAML: {error}", "see config/config.yaml for an example") from None
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}, not keys with values"
        raise _refuse(file, what, "begin with `name: my-experiment`; see config/config.yaml")
    return content, lines


def _refuse(file: str, what: str, instead: str) -> ConfigError:
    return ConfigError(file, [Problem((), what, instead)])


def _not_yaml(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark
    what = f"not YAML: {error.problem or error}"
    instead = (
        "indent with spaces" if "\\t" in str(error.problem) else "check the indentation and quotes there"
    )
    return ConfigError(file, [Problem((), what, instead, line=mark.line + 1 if mark else None)])


def _walk(node: Any, path: KeyPath, lines: Lines, problems: list[Problem], open_nodes: set[int]) -> None:
    if id(node) in open_nodes:
        problems.append(Problem(path, "an alias that contains itself", "write the values out"))
        return
    open_nodes.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[Hashable] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                problems.append(Problem(path, "a key that is not a word", "write `key: value`", line))
                continue
            key = (*path, key_node.value)
            if key_node.value in seen and key_node.value != "<<":
                problems.append(Problem(key, "stands twice", f"keep one `{dotted(key)}`", line))
            seen.add(key_node.value)
            lines[key] = line
            _walk(value_node, key, lines, problems, open_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            lines[(*path, number)] = item.start_mark.line + 1
            _walk(item, (*path, number), lines, problems, open_nodes)
    open_nodes.discard(id(node))
