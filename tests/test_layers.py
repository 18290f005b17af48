"""The direction of imports, and the size of what is written, as `docs/design.md` says."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dynemo"

#: Lower may not import higher; the parts of one layer do not import each other.
LAYERS = (
    {"errors", "spelling", "interrupt"},
    {"config", "messages", "metrics", "log", "trace"},
    {"text", "wire", "router", "openai"},
    {"models", "link"},
    {"answers"},
    {"engines", "runtime"},
    {"pipeline", "accounts"},
    {"http", "terminal"},
    {"worker", "ingress"},
    {"networking"},
    {"commands"},
    {"arguments"},
    {"inputs"},
    {"running"},
    {"cli"},
    {"__main__"},
)
_LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

PURE = ("text", "wire", "router", "openai")
_SHELL = {"asyncio", "socket", "subprocess", "nats", "aetcd", "uvicorn", "starlette"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imported(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            names += [f"{PACKAGE.name}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", _modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    part = _part(path)
    if part == "__init__":
        return
    for name in _imported(path):
        if not name.startswith("dynemo.") or name.split(".")[1] == part:
            continue
        other = name.split(".")[1]
        assert other == "__version__" or _LEVEL[other] < _LEVEL[part], f"{path.name} imports {name}"


@pytest.mark.parametrize("part", PURE)
def test_the_core_is_pure(part: str) -> None:
    for path in (PACKAGE / part).rglob("*.py"):
        outside = {name.split(".")[0] for name in _imported(path)} & _SHELL
        assert not outside, f"{path.name} imports {outside}"


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
