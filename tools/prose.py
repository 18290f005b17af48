"""Finds phrases that a reader has to read twice: prose.py PATH ...

It checks `*.py` files (docstrings, comments, messages, help texts) and `*.md` files. A PATH is a
file or a folder. It prints `file:line: phrase: advice` for each finding, and exits with 1 if there
is any. Code between backquotes and in code blocks is not checked, and neither are `FROZEN` files.

To add a rule, add a line to `RULES`: a regular expression, which ignores case, and the advice.
"""

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

#: Paths, by their ends, that are not checked.
FROZEN = (
    # A copy of the code of an old release. Its comments are part of the copy.
    "tests/support/protocol_1.py",
)

#: A longer sentence has more than one idea. `:` and `;` separate ideas as well.
MAX_WORDS = 25

_BE = "(?:is|are|was|were|be|been|being)"
_THERE = "(?<!there )"
#: After one of these, "who" starts a riddle; after a noun ("a user who waits") it does not.
_BEFORE_WHO = r"(?:^|[.,;:(] ?|\b(?:and|by|for|from|of|or|than|that|to|with) )"
_VERBS = "asks|comes|gives|goes|has|holds|knows|listens|reads|sends|speaks|takes|waits|wants|writes"

RULES: tuple[tuple[str, str], ...] = (
    (rf"{_THERE}\b{_BE} no\b(?! longer| more)", 'write "is not a ..." or "has no ..."'),
    (rf"{_THERE}\b{_BE} (?:(?-i:none)|nobody|nothing but)\b", "say what it is instead"),
    (rf"\b{_BE} told\b", 'name the action: "gets", "receives", "is configured with"'),
    (r"\b(?:has|have|had) not(?= (?:a|an|any)\b|\s*[.,;:)]|$)", 'write "has no ..." or "lacks"'),
    (rf"{_BEFORE_WHO}who (?:{_VERBS})\b", "name the client, reader or process"),
    (rf"\bwhat (?:{_VERBS}|came|follows|lies|stands|(?:is|was) (?:asked|left|said|there))\b",
     "name the thing: the answer, the rest, the request"),
    (r"\b(?:whoever|whomever)\b", "name the client, reader or process"),
    (r"\bthere where\b", 'write "where" or "if"'),
    (r"\bwhere (?:there|it|he|she) (?:is|are|has) (?:one|(?-i:none))\b", 'write "if it exists"'),
    (r"(?<!the )\b(?:one|ones) (?:that|which|who)\b", "repeat the noun"),
    (r"\bnone (?:that|which|who)\b", 'write "no ... that"'),
    (r"\b(?:anew|thereof|whatsoever|likewise|lest)\b", "use a modern word"),
    (r"\b(?:go|goes|going|gone|went) on\b(?! to\b)", 'write "continue"'),
    (r"\b(?:for want of|but for|save for|in the words of)\b", 'write "without" or "except"'),
)  # fmt: skip
_RULES = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in RULES)

#: A docstring that starts with one of these words is usually a clause without a main verb.
_FRAGMENT = re.compile(r"(?:As|Of|That|What|Where|Which|Who)\b[^?]*?(?:[.:]|$)")

_LOG = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_HELP = frozenset({"help", "description", "epilog"})


class Text(NamedTuple):
    """A text of a file. `lines` maps each character to its line number."""

    words: str
    lines: list[int]
    is_docstring: bool = False


class Finding(NamedTuple):
    line: int
    phrase: str
    advice: str


def check(path: Path) -> list[Finding]:
    """Returns the findings of one file, by line."""
    source = path.read_text(encoding="utf-8")
    texts = _markdown(source) if path.suffix == ".md" else _python(source)
    return sorted(finding for text in texts for finding in _findings(text))


def _findings(text: Text) -> Iterator[Finding]:
    for rule, advice in _RULES:
        for found in rule.finditer(text.words):
            yield Finding(text.lines[found.start()], found[0], advice)
    if text.is_docstring and (found := _FRAGMENT.match(text.words)):
        yield Finding(text.lines[0], found[0], "start with a verb or with a noun and its verb")
    for sentence in re.finditer(r"[^.!?:;]+", text.words):
        words = re.findall(r"\w[\w'’-]*", sentence[0])
        if len(words) > MAX_WORDS:
            at = sentence.start() + len(sentence[0]) - len(sentence[0].lstrip())
            start = " ".join(words[:4])
            yield Finding(
                text.lines[at], f"{start} ...", f"split the sentence of {len(words)} words"
            )


def _text(pieces: list[tuple[int, str]], *, is_docstring: bool = False) -> Text:
    """Joins lines, given with their numbers. Code and links become single words."""
    words, lines = "", []
    for number, piece in pieces:
        piece = piece.strip() + " "
        words += piece
        lines += [number] * len(piece)
    for pattern in (r"`[^`]*`", r"\]\([^)]*\)", r"https?://\S+"):
        for code in reversed([*re.finditer(pattern, words)]):
            start, end = code.span()
            words = f"{words[:start]}X{words[end:]}"
            lines[start:end] = [lines[start]]
    words = re.sub(r"(?<=\w)\.(?=\w)", "_", words)  # a dot within a name ends no sentence
    return Text(words, lines, is_docstring)


def _paragraphs(lines: list[tuple[int, str]], *, is_docstring: bool = False) -> Iterator[Text]:
    """Splits lines at blank lines, list items and tables. Skips indented and fenced code."""
    group: list[tuple[int, str]] = []
    is_fenced = False
    for number, line in [*lines, (0, "")]:
        is_fence = line.lstrip().startswith("```")
        is_fenced ^= is_fence
        starts = re.match(r"\s*(?:[-*] |\d+\. |\||#|>)", line)
        is_code = is_fenced or is_fence or (line.startswith("    ") and not starts and not group)
        if group and (not line.strip() or starts or is_code):
            yield _text(group, is_docstring=is_docstring)
            group, is_docstring = [], False
        if line.strip() and not is_code:
            line = line.strip().lstrip("|#>-* ") if starts else line
            group.append((number, line.replace("|", ".")))


def _markdown(source: str) -> Iterator[Text]:
    return _paragraphs([*enumerate(source.splitlines(), 1)])


def _python(source: str) -> Iterator[Text]:
    tree = ast.parse(source)
    yield from _comments(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstring(node)
        elif isinstance(node, ast.Call):
            for argument in _messages(node):
                yield _text([(argument.lineno, literal(argument))])


def _docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> Iterator[Text]:
    text = ast.get_docstring(node, clean=True)
    if text:
        start = node.body[0].lineno
        yield from _paragraphs([*enumerate(text.splitlines(), start)], is_docstring=True)


def _messages(call: ast.Call) -> Iterator[ast.expr]:
    """Yields the literal texts that a call shows to a user."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    is_log = isinstance(function, ast.Attribute) and name in _LOG
    if is_log or name == "print" or name[:1].isupper():  # errors, and metrics with their texts
        yield from (argument for argument in call.args if " " in literal(argument))
    for keyword in call.keywords:
        if keyword.arg in _HELP and literal(keyword.value):
            yield keyword.value


def literal(node: ast.expr) -> str:
    """Returns a literal's text, with X for interpolations, or "" for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(part) or "X" for part in node.values)
    return ""


def _comments(source: str) -> Iterator[Text]:
    group: list[tuple[int, str]] = []
    lines = iter(source.splitlines(keepends=True))
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        if token.type == tokenize.COMMENT:
            line, column = token.start
            text = token.string.lstrip("#:! ")
            is_alone = not token.line[:column].strip()
            if group and not (is_alone and group[-1][0] == line - 1):
                yield _text(group)
                group = []
            if not re.match(r"noqa|type:|fmt:|pragma", text):
                group.append((line, text))
            if not is_alone and group:
                yield _text(group)
                group = []
        elif token.type not in (tokenize.NL, tokenize.INDENT, tokenize.DEDENT) and group:
            yield _text(group)
            group = []


def main(arguments: list[str]) -> int:
    paths = [Path(argument) for argument in arguments]
    files = sorted(
        file
        for path in paths
        for file in ([path] if path.is_file() else [*path.rglob("*.py"), *path.rglob("*.md")])
        if not file.resolve().as_posix().endswith(tuple(f"/{end}" for end in FROZEN))
    )
    count = 0
    for file in files:
        for line, phrase, advice in check(file):
            count += 1
            print(f"{file}:{line}: {phrase!r}: {advice}")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
