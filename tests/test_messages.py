"""The form of messages: each is a sentence, or several, with a capital and a full stop.

Messages are the texts of our errors, the log lines, and the lines on standard error. They have no
space at either end and no double space. A message starts with one of these: a capital letter, a
digit, a quoted value, a flag, a side of a run (`in=`, `out=`), a chat command, one of `NAMES`. It
ends with a full stop or a question mark.

An interpolation may start a message only if it is a quoted value, a constant of the module, or one
of `STARTS` or `SENTENCES`. An interpolation may end a message only if it is a quoted value or one
of `SENTENCES`, and a sentence must follow another one: no colon and no parenthesis stands before
it.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "dynemo"

#: Names of programs with a small first letter.
NAMES = ("dynemo-run", "etcd", "llama.cpp", "mistral.rs", "nats-server", "vLLM")
#: Interpolations of names of ours: a message may start with them as they are. With a dot: the last
#: two parts of an expression; without: the last part.
STARTS = frozenset(
    {
        "_peer",  # "The worker"
        "engine",
        "engine.name",
        "flag",
        "kind.name",  # of a server of `dynemo-run services`: "etcd"
        "place",  # "--engine-python FILE"
        "source",  # of a setting: a flag, a variable, or a key and its file
        "variable",
    }
)
#: Interpolations that are whole sentences, by the name of the variable or the function.
SENTENCES = frozenset({"advice", "advice_for", "complaint", "error", "hint", "note", "problem"})
#: Messages of another form, by the reason.
EXEMPT = {
    # The words of OpenAI's API, which some clients compare.
    "Unrecognized request argument supplied: {field}": "OpenAI",
    "Invalid URL ({method} {path})": "OpenAI",
    "Not allowed to {method} on {path} "
    "(HINT: Perhaps you meant to use a different HTTP method?)": "OpenAI",
    # One line for each request, for programs: the operation or the outcome, and fields.
    "{_operation.name}: {status}": "access log",
    "answer: {outcome}": "access log",
    # Texts of others, and of a line that is drawn again and again.
    "{text}": "a line of an engine's output",
    "{failure.trace}": "a traceback",
    "\r\x1b[K{text}": "the status line",
    "\r\x1b[K": "the status line",
}

_START = re.compile(
    rf"[A-Z0-9\"'`\[]|--[a-z]|(?:in|out)=|/[a-z]|(?:{'|'.join(map(re.escape, NAMES))})\b"
)
_SENTENCE_END = re.compile(r"(?:^|[.?;\"`}] ?|\n)$")
_LOG = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
#: Functions that print their arguments as lines on standard error.
_LINES = frozenset({"notify", "print_line", "_print_lines"})
_CONVERSION = re.compile(r"%[-+ #0-9.]*[a-z]")

Known = Mapping[str, list[ast.expr]]  #: the values of each name in a scope


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
    module = _assigned(tree) | _returned(tree)
    for scope in ast.walk(tree):
        if not isinstance(scope, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        known = module | _assigned(scope)
        for call in _calls(scope):
            for argument in call.args if _prints_lines(call) else call.args[:1]:
                for text in _texts(argument, known):
                    if text:
                        yield call.lineno, _filled(text, call)


def _calls(scope: ast.AST) -> Iterator[ast.Call]:
    """Yields the calls of a scope that take a message, without those of the functions in it."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.Call) and node.args and _takes_message(node):
            yield node
        yield from _calls(node)


def _takes_message(call: ast.Call) -> bool:
    match call.func:
        case ast.Name(id="print"):
            return any(ast.unparse(keyword.value) == "sys.stderr" for keyword in call.keywords)
        case ast.Name(id=name):
            return name in _error_names() or name in _LINES
    return _is_log(call)


def _prints_lines(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in _LINES


def _is_log(call: ast.Call) -> bool:
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in _LOG:
        return False
    logger = ast.unparse(call.func.value)
    return logger in ("log", "_log", "logger") or logger.startswith("logging.getLogger(")


def _assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Returns the values that are assigned to each name in a scope."""
    values: dict[str, list[ast.expr]] = {}
    for node in getattr(scope, "body", []):
        for inner in ast.walk(node) if not isinstance(scope, ast.Module) else [node]:
            match inner:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    values.setdefault(name, []).append(value)
                case ast.NamedExpr(target=ast.Name(id=name), value=value):
                    values.setdefault(name, []).append(value)
    return values


def _returned(tree: ast.Module) -> dict[str, list[ast.expr]]:
    """Returns the values that each function of a module returns, under `name()`."""
    return {
        f"{function.name}()": [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Return) and node.value is not None
        ]
        for function in tree.body
        if isinstance(function, ast.FunctionDef)
    }


def _texts(node: ast.expr, known: Known) -> list[str | None]:
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
        case ast.Call(func=ast.Name(id=name)):
            return _texts(ast.Name(f"{name}()"), known)
        case ast.Name(id=name) if name in known:
            rest = {key: value for key, value in known.items() if key != name}
            return [text for value in known[name] for text in _texts(value, rest)]
    return [None]


def _part(part: ast.expr, known: Known) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    value = part.value
    if isinstance(value, ast.Name) and value.id.isupper():
        return next((text for text in _texts(value, known) if text), "{}")
    return _label(value)


def _label(value: ast.expr) -> str:
    """Returns `{name}`, `{object.name}`, or for a call the name of its function."""
    match value:
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return _label(inner)
        case ast.Name(id=name):
            return '"x"' if name == "quoted" else f"{{{name}}}"
        case ast.Attribute(value=ast.Attribute(attr=owner), attr=name):
            return f"{{{owner}.{name}}}"
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return f"{{{name}}}" if owner == "self" else f"{{{owner}.{name}}}"
    return "{}"


def _filled(text: str, call: ast.Call) -> str:
    """Returns the text of a log line with its arguments, or that of a line on a terminal without
    the name of the program."""
    if not _is_log(call):
        return text.removeprefix("dynemo-run: ")
    labels = map(_label, call.args[1:])
    return _CONVERSION.sub(lambda _: next(labels), text)


def faults(text: str) -> list[str]:
    """Returns the faults in the form of a message."""
    if text in EXEMPT:
        return []
    found = []
    start, end = re.match(r"\{([\w.]*)\}", text), re.search(r"\{([\w.]*)\}$", text)
    if not (_is_among(start[1], STARTS | SENTENCES) if start else _START.match(text)):
        found.append("it does not start with a capital or a quoted value")
    if not (_is_among(end[1], SENTENCES) if end else text.endswith((".", "?"))):
        found.append("it does not end with a full stop")
    elif end and not _SENTENCE_END.search(text[: end.start()]):
        found.append("the sentence at its end does not follow a sentence")
    if text != text.strip():
        found.append("it has a space at one end")
    if "  " in text:
        found.append("it has a double space")
    return found


def _is_among(label: str, names: frozenset[str]) -> bool:
    return label in names or label.rpartition(".")[2] in names


def _files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


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
        ('A = "a.b"\nraise ModelError(f"{A} is {x.y}")', "a.b is {x.y}"),
        ('A = "The {x}."\nraise ModelError(A.format(x=1))', "The {x}."),
        ('raise ModelError("a" + ("b" if x else "c"))', "ab"),
        ('def f():\n    m = "No."\n    raise RequestError(m, param="x")', "No."),
        ('log.warning("Lost %s, %d.", a.b, x)', "Lost {a.b}, {x}."),
        ('def f():\n    return "No."\nraise ModelError(f())', "No."),
        ('print("dynemo-run: No.", file=sys.stderr)', "No."),
        ('notify("One.", "Two.")', "Two."),
    ],
)
def test_literal_messages_are_found(source: str, text: str) -> None:
    assert text in [found for _, found in messages(ast.parse(source))]


@pytest.mark.parametrize(
    "text",
    [
        "cannot read x.",
        "No full stop",
        " A.",
        "A.  B.",
        "{name} is wrong.",
        "It is {name}",
        "a: b",
        "It is: {error}",
    ],
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
        "{flag} takes a number.",
        "{engine.name} is not installed.",
        "in=text is a chat.",
        "It fails. {problem}",
        "answer: {outcome}",
    ],
)
def test_right_forms_pass(text: str) -> None:
    assert not faults(text)
