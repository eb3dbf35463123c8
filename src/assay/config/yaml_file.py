"""Reading YAML so that errors can say the line: safe, without duplicate keys, without YAML 1.1's surprises."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from assay.config.errors import ConfigError, Problem, dotted
from assay.config.errors import Path as KeyPath

Lines = dict[KeyPath, int]

MOST_VALUES = 200_000
"""An experiment has hundreds of values, or thousands of seeds; aliases of aliases can stand for billions."""
DEEPEST = 30
"""An experiment is five levels deep; the C parser's stack ends at some tens of thousands."""

_STRING, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_NUMBERS = {
    # YAML 1.1 reads 1e-3 as a word, 1:30 as 90 and 010 as 8: numbers are written as in YAML 1.2 here.
    "tag:yaml.org,2002:int": re.compile(r"^[-+]?(?:0|[1-9][0-9_]*|0x[0-9a-fA-F]+)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$"
        r"|^\.(?:nan|NaN|NAN)$"
    ),
}


def _loader() -> Any:
    """A safe loader whose plain words are texts, numbers, booleans and null: no dates, no base 60."""
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    changed = {*_NUMBERS, "tag:yaml.org,2002:timestamp"}
    kept = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in changed]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    loader: Any = type("_ExperimentLoader", (base,), {"yaml_implicit_resolvers": kept})
    for tag, pattern in _NUMBERS.items():
        loader.add_implicit_resolver(tag, pattern, list("-+.0123456789"))
    return loader


_Loader = _loader()


def read_yaml(
    path: Path, *, kind: str = "experiment", example: str = "config/config.yaml"
) -> tuple[dict[str, Any], Lines]:
    """The file as a mapping, and the line of every key. Keys are texts as they stand: an arm may be named `on`.

    kind, example: what file is meant, and where one can be seen, in the words of errors.
    Raises: ConfigError for a file that is missing, not UTF-8, not YAML, not a mapping, or names a key twice.
    """
    file = str(path)
    lines: Lines = {}
    try:
        content = _parse(_text(path, kind), file, lines)
    except yaml.MarkedYAMLError as error:
        raise _not_yaml(file, error) from None
    except ConfigError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise _refuse(file, f"not YAML: {what}", f"see {example} for an example") from None
    if not isinstance(content, dict):
        what = "is empty" if content is None else f"holds a {type(content).__name__}, not keys with values"
        raise _refuse(file, what, f"begin with `name: my-{kind}`; see {example}")
    return content, lines


def _text(path: Path, kind: str) -> str:
    file = str(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise _refuse(file, "no such file", f"give the path of {_a(kind)} file") from None
    except IsADirectoryError:
        raise _refuse(file, "is a folder", f"give the path of {_a(kind)} file") from None
    except UnicodeDecodeError as error:
        raise _refuse(file, f"not UTF-8 text (byte {error.start})", "save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _refuse(file, f"cannot be read: {reason}", "check the path and its permissions") from None


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _parse(text: str, file: str, lines: Lines) -> Any:
    _check_depth(text, file)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        problems = list(_problems(root, lines))
        if problems:
            raise ConfigError(file, problems)
        return None if root is None else loader.construct_document(root)
    finally:
        loader.dispose()


def _check_depth(text: str, file: str) -> None:
    """Refuse what would overflow the parser's stack: events come one at a time, whatever the depth."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                line = getattr(event.start_mark, "line", 0) + 1
                what = f"more than {DEEPEST} sections or lists in one another"
                raise ConfigError(file, [Problem((), what, "close the brackets before", line)])
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _problems(root: Any, lines: Lines) -> Iterator[Problem]:
    """Note the line of every key of a tree of nodes, and tell what no experiment may hold."""
    if root is None:
        return
    values = 0
    waiting: list[tuple[Any, KeyPath, frozenset[int]]] = [(root, (), frozenset())]
    while waiting:
        node, path, around = waiting.pop()
        values += 1
        if values > MOST_VALUES:
            yield Problem(path, f"more than {MOST_VALUES} values, aliases included", "write fewer")
            return
        if isinstance(node, yaml.ScalarNode):
            continue
        if id(node) in around:
            yield Problem(path, "an alias that contains itself", "write the values out", lines.get(path))
            continue
        around |= {id(node)}
        if isinstance(node, yaml.MappingNode):
            yield from _note_keys(node, path, lines)
            below = [(key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        else:
            below = list(enumerate(node.value))
            lines.update({(*path, number): item.start_mark.line + 1 for number, item in below})
        waiting.extend((value, (*path, key), around) for key, value in reversed(below))


def _note_keys(node: Any, path: KeyPath, lines: Lines) -> Iterator[Problem]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            yield Problem(path, "a key that is not a word", "write `key: value`", line)
            continue
        if key_node.tag != _MERGE:
            key_node.tag = _STRING
            if key_node.value in seen:
                first = lines[(*path, key_node.value)]
                key = (*path, key_node.value)
                yield Problem(key, f"stands twice, first on line {first}", f"keep one `{dotted(key)}`", line)
                continue
            seen.add(key_node.value)
        lines[(*path, key_node.value)] = line


def _refuse(file: str, what: str, instead: str) -> ConfigError:
    return ConfigError(file, [Problem((), what, instead)])


def _not_yaml(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark
    what = f"not YAML: {error.problem or error}"
    tab = mark is not None and "cannot start any token" in what and _char_at(file, mark) == "\t"
    if tab:
        what = "a tab, which YAML does not take for indentation"
    instead = "indent with spaces" if tab else "check the indentation and quotes there"
    return ConfigError(file, [Problem((), what, instead, line=mark.line + 1 if mark else None)])


def _char_at(file: str, mark: yaml.Mark) -> str:
    lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    return line[mark.column : mark.column + 1]
