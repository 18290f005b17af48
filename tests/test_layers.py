"""The direction of imports and the size of modules, as `docs/design.md` describes them."""

import ast
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dynemo"

#: A lower layer may not import a higher one. The units of one layer do not import each other. The
#: unit of a module is the longest name that fits it.
LAYERS = (
    {
        "descriptors",
        "errors",
        "limits",
        "foreign",
        "spelling",
        "folders",
        "interrupt",
        "trace",
        "metrics",
        "tasks",
    },
    {"messages", "command_line", "engine_api", "log"},
    {"tokenizers", "wire", "router"},
    {"answer", "api", "connection"},
    {"prompt"},
    {"models", "environments", "planes"},
    {"engines", "serving", "app.settings"},
    {"http", "terminal"},
    {"app.networking"},
    {"commands"},
    {"app"},
    {"__main__"},
)
_LEVEL = {unit: level for level, units in enumerate(LAYERS) for unit in units}

PURE = ("messages", "command_line", "tokenizers", "wire", "router", "answer", "api", "prompt")
_SHELL = {"asyncio", "socket", "subprocess", "nats", "aetcd", "uvicorn", "starlette"}

#: The runner never loads an engine's adapter. The engine host never loads units that only the
#: runner needs, because its environment has few packages.
_HOST = "engines"
_RUNNER_ONLY = {"environments", "serving", "planes", "http", "terminal", "commands", "app", "api"}

#: `foreign` alone decodes what others wrote. A token's delta is decoded without its wrapper, and
#: `deltas` handles the same errors itself.
_DECODERS = {"json.loads", "json.load", "json.decode", "json.Decoder", "msgpack.decode"}
_DECODERS |= {"msgpack.Decoder", "tomllib.loads", "tomllib.load", "pickle.loads", "pickle.load"}
_DECODE = {"foreign", "wire.deltas"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _unit(name: str) -> str:
    parts = name.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((name for name in names if name in _LEVEL), parts[0])


@cache
def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            is_package = node.module.split(".")[0] == PACKAGE.name
            inner = [f"{node.module}.{alias.name}" for alias in node.names] if is_package else []
            modules = [name for name in inner if _is_module(name)]
            names += modules or [node.module]
    return names


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _inner(path: Path) -> list[str]:
    """Returns the names that a module imports from the package, without the package's name."""
    start = f"{PACKAGE.name}."
    return [name.removeprefix(start) for name in _imported(path) if name.startswith(start)]


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    unit = _unit(_name(path))
    if unit == "__init__":
        return
    for name in _inner(path):
        other = _unit(name)
        assert other == unit or _LEVEL[other] < _LEVEL[unit], f"{_name(path)} imports {name}"


def test_no_circle_of_files() -> None:
    imports = {_name(path): set(_inner(path)) for path in _modules()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        if name in trail:
            raise AssertionError(" -> ".join([*trail[trail.index(name) :], name]))
        if name in done or name not in imports:
            return
        for other in sorted(imports[name]):
            visit(other, (*trail, name))
        done.add(name)

    for name in imports:
        visit(name, ())


@pytest.mark.parametrize("part", PURE)
def test_the_core_is_pure(part: str) -> None:
    found = [path for path in _modules() if _name(path).split(".")[0] == part]
    assert found
    for path in found:
        outside = {name.split(".")[0] for name in _imported(path)} & _SHELL
        assert not outside, f"{path.name} imports {outside}"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_wall_between_runner_and_host(path: Path) -> None:
    part = _name(path).split(".")[0]
    others = {name.split(".")[0] for name in _inner(path)}
    if part == _HOST:
        assert not others & _RUNNER_ONLY
    else:
        assert _HOST not in others


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_one_module_decodes_foreign_data(path: Path) -> None:
    if _name(path) in _DECODE:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            used = ".".join(ast.unparse(node).split(".")[-2:])
            assert used not in _DECODERS, f"{_name(path)} uses {used}, not a decoder of foreign.py"
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                used = f"{(node.module or '').rpartition('.')[2]}.{alias.name}"
                assert used not in _DECODERS, f"{_name(path)} imports {used}"


def test_no_folder_is_flat_where_files_share_a_prefix() -> None:
    for folder in {path.parent for path in _modules()}:
        stems = sorted(path.stem for path in folder.glob("[!_]*.py"))
        for one, other in pairwise(stems):
            shared = one.split("_")[0] == other.split("_")[0]
            assert not shared, f"{folder.name}/ has {one} and {other}"


def test_no_two_public_classes_have_one_name() -> None:
    seen: dict[str, str] = {}
    for path in _modules():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                assert node.name not in seen, f"{_name(path)}, {seen[node.name]}: {node.name}"
                seen[node.name] = _name(path)


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_fit_on_a_few_screens(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 360, f"{path} has {lines} lines"


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_functions_are_short(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{path.name}: {node.name} has {length} lines"
