"""The form of messages: errors and log lines are sentences, with a capital and a full stop.

A message starts with a capital letter, a digit, a quoted value, an argument (`--flag`, `in=`,
`out=`), a chat command or one of `NAMES`. It ends with a full stop or a question mark. It has no
space at either end and no double space. An interpolation may start or end a message only if it is
a quoted value, a constant of the module, or one of `SENTENCES`.

`FOLDERS` and `FILES` list the code that has this form so far. Add to them.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dynemo"

FOLDERS = ("answer", "engines", "messages", "models", "prompt", "router", "terminal", "tokenizers")
FILES = (
    "engine_api.py", "errors.py", "folders.py", "interrupt.py", "log.py", "metrics.py",
    "spelling.py", "trace.py",
)  # fmt: skip

#: Names of programs with a small first letter.
NAMES = ("dynemo-run", "etcd", "llama.cpp", "mistral.rs", "nats-server", "vLLM")
#: Interpolations that are whole sentences, by the name of the variable or the function.
SENTENCES = frozenset({"advice", "advice_for", "complaint", "error", "hint", "problem"})

_START = re.compile(
    rf"[A-Z0-9\"'`\[]|--[a-z]|/[a-z]|(?:in|out)=|(?:{'|'.join(map(re.escape, NAMES))})\b|%s"
)
_ACCESS = re.compile(r"%s: %[sd]$|[a-z ]+: (?:\d+|%[sd])$")
_LOG = frozenset({"debug", "info", "warning", "error", "exception", "critical"})


@cache
def _error_names() -> frozenset[str]:
    """Returns the names of `DynemoError` and of all classes that derive from it, in any file."""
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.ClassDef)
    }
    names = {"DynemoError"}
    while new := {name for name, parents in bases.items() if parents & names} - names:
        names |= new
    return frozenset(names)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields the line and the text of each literal message."""
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        known = {**_assigned(tree), **_assigned(scope)}
        for call in _calls(scope):
            if call.args:
                yield from (
                    (call.lineno, text) for text in _texts(call.args[0], known) if text is not None
                )


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    """Yields the calls of a scope that take a message, without those of the functions in it."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Call) and _takes_message(node.func):
            yield node
        yield from _calls(node)


def _takes_message(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in _error_names()
    return (
        isinstance(function, ast.Attribute)
        and function.attr in _LOG
        and isinstance(function.value, ast.Name)
        and function.value.id in ("log", "logger")
    )


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Returns the values that are assigned to each name in a scope."""
    values: dict[str, list[ast.expr]] = {}
    for node in getattr(scope, "body", []):
        for inner in ast.walk(node) if not isinstance(scope, ast.Module) else [node]:
            if isinstance(inner, ast.Assign) and isinstance(inner.targets[0], ast.Name):
                values.setdefault(inner.targets[0].id, []).append(inner.value)
    return values


def _texts(node: ast.expr, known: dict[str, list[ast.expr]]) -> list[str | None]:
    """Returns all texts that an expression may have, with None for an unknown one.

    An interpolation appears as "{name}", or as text if it is a constant or quoted.
    """
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            return ["".join(_part(part, known) for part in parts)]
        case ast.IfExp(body=one, orelse=other):
            return [*_texts(one, known), *_texts(other, known)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            pairs = [(a, b) for a in _texts(left, known) for b in _texts(right, known)]
            return [None if a is None or b is None else a + b for a, b in pairs]
        case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="format")):
            return _texts(ast.Name(name), known)
        case ast.Name(id=name) if name in known:
            values = known[name]
            rest = {key: value for key, value in known.items() if key != name}
            return [text for value in values for text in _texts(value, rest)]
    return [None]


def _part(part: ast.expr, known: dict[str, list[ast.expr]]) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    value = part.value
    function = value.func if isinstance(value, ast.Call) else value
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "quoted":
        return '"x"'
    if isinstance(value, ast.Name) and value.id.isupper():
        return next((text for text in _texts(value, known) if text), "{}")
    return f"{{{name}}}"


def faults(text: str) -> list[str]:
    """Returns the faults in the form of a message."""
    if text == "%s" or _ACCESS.fullmatch(text):
        return []
    starts = re.match(r"\{(\w*)\}", text)
    ends = re.search(r"\{(\w*)\}$", text)
    is_start = starts[1] in SENTENCES if starts else bool(_START.match(text))
    is_end = ends[1] in SENTENCES if ends else text.endswith((".", "?", "%s"))
    return [
        *([] if is_start else ["it does not start with a capital or a quoted value"]),
        *([] if is_end else ["it does not end with a full stop"]),
        *(["it has a space at one end"] if text != text.strip() else []),
        *(["it has a double space"] if "  " in text else []),
    ]


def _files() -> list[Path]:
    folders = [PACKAGE / folder for folder in FOLDERS]
    return sorted(
        [*(PACKAGE / file for file in FILES), *(f for d in folders for f in d.rglob("*.py"))]
    )


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_messages_are_sentences(path: Path) -> None:
    found = [
        f"{path.name}:{line}: {text!r}: {fault}"
        for line, text in messages(_tree(path))
        for fault in faults(text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('raise UsageError("It failed.")', "It failed."),
        ("raise UsageError(f'{quoted(x)} is wrong.')", '"x" is wrong.'),
        ('A = "a.b"\nraise ModelError(f"{A} is {x.y}")', "a.b is {y}"),
        ('A = "The {x}."\nraise ModelError(A.format(x=1))', "The {x}."),
        ('raise ModelError("a" + ("b" if x else "c"))', "ab"),
        ('def f():\n    m = "No."\n    raise RequestError(m, param="x")', "No."),
        ('log.warning("Lost %s.", x)', "Lost %s."),
    ],
)
def test_literal_messages_are_found(source: str, text: str) -> None:
    assert text in [found for _, found in messages(ast.parse(source))]


@pytest.mark.parametrize(
    "text",
    ["cannot read x.", "No full stop", " A.", "A.  B.", "{name} is wrong.", "It is {name}", "a: b"],
)
def test_wrong_forms_are_found(text: str) -> None:
    assert faults(text)


@pytest.mark.parametrize(
    "text",
    [
        "It is wrong.",
        "--flag is wrong.",
        "vLLM is wrong.",
        '"x" is wrong. {advice}',
        "Unknown x; {hint}",
        "{error} Use another.",
        "Did you mean x?",
        "chat completion: %d",
        "%s",
    ],
)
def test_right_forms_pass(text: str) -> None:
    assert not faults(text)
