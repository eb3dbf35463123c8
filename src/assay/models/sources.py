"""Which of the user's files stand behind `module:function`: found by reading, without importing anything.

The workflow asks this whenever it is parsed, so nothing heavy is imported here.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay.models.errors import ModelError, suggestion

LIBRARIES = ("builtin", "torchvision", "timm")
"""Words before the colon that are not the user's modules."""
BUILTIN = ("mlp", "cnn", "resnet-small")


@dataclass(frozen=True)
class Module:
    """One Python file as its importer names it."""

    name: str
    path: Path

    @property
    def package(self) -> str:
        """The package that relative imports start from; empty at the top."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


def source_files(source: str, roots: Sequence[Path]) -> list[Path]:
    """The user's module and all local modules that it imports, directly or not.

    A local module is a `.py` file below one of `roots` (searched in order). Imports inside functions count;
    modules that are named only at run time (`importlib.import_module`) do not. Names of the standard library
    are never local.

    Args:
        source: `module:function`, or the name of a source that is not the user's (gives an empty list).
        roots: folders in which the user's modules lie; the paths returned start with them as given.

    Returns: sorted paths, each file once.

    Raises: ModelError naming the module, the folders searched and the nearest file.
    """
    name, colon, _ = source.partition(":")
    if not colon or name in LIBRARIES:
        return []
    waiting = find_module(name, roots)
    found: dict[Path, Path] = {}
    while waiting:
        module = waiting.pop()
        resolved = module.path.resolve()
        if resolved in found:
            continue
        found[resolved] = module.path
        for imported in _imported_names(module):
            waiting.extend(_local_modules(imported, roots))
    return sorted(found.values())


def check_source(source: str, roots: Sequence[Path]) -> None:
    """What can be told of a source without importing anything: whether the network, or module and function, are there.

    Raises: ModelError naming what is known in its place.
    """
    name, _, function = source.partition(":")
    if name == "builtin" and function not in BUILTIN:
        known = ", ".join(BUILTIN)
        raise ModelError(f"no 'builtin:{function}' (there are {known}){suggestion(function, BUILTIN)}")
    if name in LIBRARIES or not function:
        return
    module = find_module(name, roots)[-1]
    defined = _defined_names(module)
    if defined is not None and function not in defined:
        raise ModelError(f"{module.path}: no function '{function}'{suggestion(function, defined)}")


def find_module(name: str, roots: Sequence[Path]) -> list[Module]:
    """The files that importing `name` runs: the packages above it, then the module itself.

    Raises: ModelError if there is no such module below `roots`.
    """
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        raise ModelError(f"module '{name}': Python's own library has a module '{top}'; rename your file")
    modules = _local_modules(name, roots)
    if not modules or modules[-1].name != name:
        searched = ", ".join(f"'{root}'" for root in dict.fromkeys(roots)) or "no folder"
        file = name.replace(".", "/") + ".py"
        raise ModelError(f"module '{name}': no file {file} in {searched}{_nearest(name, roots)}")
    return modules


def _nearest(name: str, roots: Sequence[Path]) -> str:
    folder = Path(*name.split(".")[:-1])
    known: set[str] = set()
    for root in roots:
        below = (root, root / folder)
        files = {file for place in below if place.is_dir() for file in place.glob("*.py")}
        known |= {".".join(file.relative_to(root).with_suffix("").parts) for file in files}
    return suggestion(name, known)


def _local_modules(name: str, roots: Sequence[Path]) -> list[Module]:
    """The local files of `name` and of the packages above it, as far as they exist."""
    parts = name.split(".")
    if not parts[0] or parts[0] in sys.stdlib_module_names:
        return []
    for root in roots:
        modules = list(_modules_on_the_way(root, parts))
        if modules:
            return modules
    return []


def _modules_on_the_way(root: Path, parts: Sequence[str]) -> Iterator[Module]:
    for depth in range(1, len(parts) + 1):
        stem = root.joinpath(*parts[:depth])
        for path in (stem / "__init__.py", stem.with_name(f"{stem.name}.py")):
            if path.is_file():
                yield Module(".".join(parts[:depth]), path)
                break


def _parsed(module: Module) -> ast.Module:
    try:
        return ast.parse(module.path.read_bytes(), filename=str(module.path))
    except SyntaxError as error:
        raise ModelError(f"{module.path}:{error.lineno}: {error.msg}") from None
    except ValueError as error:
        raise ModelError(f"{module.path}: not a Python file: {error}") from None


def _defined_names(module: Module) -> set[str] | None:
    """Names that the module may give to others; None where only running it would tell."""
    names: set[str] = set()
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    return None if names & {"*", "__getattr__", "globals", "setattr", "exec"} else names


def _imported_names(module: Module) -> Iterator[str]:
    """Full names that the module's import statements may stand for, existing or not."""
    for node in ast.walk(_parsed(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = _start(node, module.package)
            yield start
            yield from (f"{start}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Assign) and any(_is_all(target) for target in node.targets):
            names = (item.value for item in ast.walk(node.value) if isinstance(item, ast.Constant))
            yield from (f"{module.package}.{name}" for name in names if isinstance(name, str))


def _is_all(target: ast.expr) -> bool:
    """Whether `__all__` is assigned: a package's may name modules, which `from package import *` imports."""
    return isinstance(target, ast.Name) and target.id == "__all__"


def _start(node: ast.ImportFrom, package: str) -> str:
    """The absolute name of what stands between `from` and `import`."""
    if not node.level:
        return node.module or ""
    parts = package.split(".") if package else []
    above = parts[: max(0, len(parts) - (node.level - 1))]
    return ".".join([*above, *([node.module] if node.module else [])])
