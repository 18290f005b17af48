"""Words and flags to values. Every mistake is one sentence that names the word."""

from collections.abc import Iterable, Sequence
from typing import Any

from dynemo.command_line.flags import HELP, Flag, Subcommand, Word
from dynemo.errors import UsageError
from dynemo.spelling import quoted, unknown


def asks_for_help(argv: Iterable[str]) -> bool:
    return any(word in HELP.spellings for word in argv)


def read_flags(
    argv: Sequence[str], flags: Iterable[Flag], *, otherwise: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The values by the flags' keys, and the words that are not flags, in order.

    A flag may stand anywhere. If a flag is given twice, the last value counts, so that a script can
    append to its flags; the values of a list add up. A flag without a value has the number of
    times that it was given (`-vv` is 2). Abbreviations are not accepted. `otherwise` is the advice
    for an unknown flag that has no near neighbour. Raises UsageError.
    """
    by_name = {spelling: flag for flag in flags for spelling in flag.spellings}
    given: dict[str, Any] = {}
    words: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        source, equals, text = word.partition("=")
        times = _times(source, by_name)
        flag = by_name.get(source[:2] if times else source)
        if flag is None:
            raise UsageError(unknown("flag", source, list(by_name), otherwise=otherwise))
        if not flag.metavar:
            if equals:
                raise UsageError(f"{source} takes no value, but got {quoted(text)}.")
            given[flag.key] = given.get(flag.key, 0) + (times or 1)
            continue
        if not equals:
            if not rest or rest[0].startswith("--") or rest[0] in by_name:
                raise UsageError(f"{source} needs a value: {source} {flag.metavar}.")
            text = rest.pop(0)
        value = flag.read(text, source)
        given[flag.key] = given.get(flag.key, ()) + value if flag.is_list else value
    return given, words


def _times(name: str, by_name: dict[str, Flag]) -> int:
    """The number of letters of a short flag without a value (`-vv`); 0 for any other word."""
    letter = name[1:2]
    is_repeated = (
        not name.startswith("--") and f"-{letter}" in by_name and set(name[1:]) == {letter}
    )
    return len(name) - 1 if is_repeated and not by_name[f"-{letter}"].metavar else 0


def twice(source: str, first: str, second: str) -> str:
    """The sentence for what may be given once."""
    return f"{source} is given twice, as {quoted(first)} and as {quoted(second)}; keep one."


def find_command(command: Subcommand, argv: Sequence[str]) -> tuple[Subcommand, list[str]]:
    """The innermost command that `argv` names, and the words behind its name. Raises UsageError."""
    if not command.commands:
        return command, list(argv)
    by_word = {each.word: each for each in command.commands}
    if not argv or argv[0].startswith("-"):
        raise UsageError(
            f"`{command.name}` needs a command after it; choose one of {', '.join(by_word)}."
        )
    if argv[0] not in by_word:
        raise UsageError(unknown(f"{command.word} command", argv[0], list(by_word)))
    return find_command(by_word[argv[0]], argv[1:])


def read_command(command: Subcommand, argv: Sequence[str]) -> dict[str, Any]:
    """The values of a command's flags and words by their keys; what was not given is missing.
    Raises UsageError."""
    given, words = read_flags(argv, command.every_flag)
    for flag in command.flags:
        if flag.is_required and flag.key not in given:
            raise UsageError(f"`{command.name}` needs {flag.name} {flag.metavar}.")
    for word in command.words:
        if words:
            given[word.key] = word.read(words.pop(0))
        elif not word.is_optional:
            raise UsageError(_missing(command, word))
    if words:
        raise UsageError(f"Unexpected word {quoted(words[0])}; see `{command.name} --help`.")
    return given


def _missing(command: Subcommand, missing: Word) -> str:
    listed = f"; choose one of {', '.join(missing.choices)}" if missing.choices else ""
    forms = " ".join(word.name for word in command.words)
    return f"`{command.name}` needs {forms} after it{listed}."
