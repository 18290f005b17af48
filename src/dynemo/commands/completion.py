"""`dynemo-run completion SHELL`: a script that completes the command, made from its own tables.

Each shell gets the same few lines in its own language. They find the command and the flag before
the cursor, and offer what may follow; if that may be anything, the shell completes file names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from dynemo.app.settings.options import OPTIONS
from dynemo.command_line.flags import Flag, Subcommand
from dynemo.commands.table import COMMANDS
from dynemo.environments.registry import ENGINES

_INPUTS = ("text", "stdin", "http", "batch:", "dyn://", "none")


@dataclass(frozen=True)
class CompletionSlot:
    """The words and flags that may follow a command. `flags` has the values of each flag: None if
    it takes no value, an empty tuple if it takes any."""

    words: tuple[str, ...]
    flags: Mapping[str, tuple[str, ...] | None]
    takes_files: bool


Grammar = Mapping[str, CompletionSlot]  #: by the words before; the empty text is a run's


def grammar() -> Grammar:
    outputs = [*ENGINES, "dyn://"]
    sides = [*(f"in={name}" for name in _INPUTS), *(f"out={name}" for name in outputs)]
    flags = _values(OPTIONS) | {"--help": ("all",), "--version": None}
    slots = {"": CompletionSlot(tuple(sides), flags, takes_files=True)}
    for command in COMMANDS:
        slots |= _slots(command)
    return slots


def _slots(command: Subcommand) -> Grammar:
    """The slot of a command, and those of the commands below it."""
    below: dict[str, CompletionSlot] = {}
    for each in command.commands:
        below |= _slots(each)
    words = [each.word for each in command.commands]
    for word in command.words:
        words += word.suggestions or word.choices
    takes_files = not words and any(word.is_file for word in command.words)
    slot = CompletionSlot(tuple(words), _values(command.every_flag), takes_files)
    return {command.name.removeprefix("dynemo-run "): slot, **below}


def _values(flags: Sequence[Flag]) -> dict[str, tuple[str, ...] | None]:
    return {
        spelling: flag.choices if flag.metavar else None
        for flag in flags
        for spelling in flag.spellings
        if spelling.startswith("--")
    }


def script(shell: str, slots: Grammar) -> str:
    """The script for bash, zsh or fish; the user's start-up file evaluates it."""
    # The longest first: `engine install` before `engine`.
    ordered = sorted(slots.items(), key=lambda each: (-len(each[0].split()), each[0]))
    if shell == "fish":
        template, case = _FISH, _fish_case
    else:
        template, case = (_BASH if shell == "bash" else _ZSH), _case
    cases = "\n".join(case(*each) for each in ordered)
    return template % {"cases": cases, "commands": " ".join(command.word for command in COMMANDS)}


def _case(name: str, slot: CompletionSlot) -> str:
    """For bash and zsh: sets the offers, and the number of words after which there are none."""
    lines = [f"        {quote(name + ' ') if name else ''}*)"]
    lines.append(f"            offers={_join(slot.words)} flags={_join(slot.flags)}")
    lines.append(f"            at={_at(name)} is_file={int(slot.takes_files)}")
    valued = {flag: values for flag, values in slot.flags.items() if values is not None}
    if valued:
        lines.append('            case "$last" in')
        for values, flags in _by_values(valued).items():
            lines.append(f"                {'|'.join(flags)}) values={_join(values)} ;;")
        lines.append("            esac")
    return "\n".join([*lines, "            ;;"])


def _fish_case(name: str, slot: CompletionSlot) -> str:
    lines = [f"        case {quote(f'{name} *' if name else '*')}"]
    lines.append(f"            set offers {' '.join(slot.words)}")
    lines.append(f"            set flags {' '.join(slot.flags)}")
    lines.append(f"            set at {_at(name)}; set is_file {int(slot.takes_files)}")
    valued = {flag: values for flag, values in slot.flags.items() if values is not None}
    if valued:
        lines.append('            switch "$last"')
        for values, flags in _by_values(valued).items():
            lines.append(f"                case {' '.join(flags)}")
            lines.append(f"                    set is_value 1; set values {' '.join(values)}")
        lines.append("            end")
    return "\n".join(lines)


def _at(name: str) -> int:
    """The number of words before those that the slot offers; a run's may stand anywhere."""
    return len(name.split()) + 1 if name else 1000


def _by_values(valued: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], list[str]]:
    flags: dict[tuple[str, ...], list[str]] = {}
    for flag, values in valued.items():
        flags.setdefault(values, []).append(flag)
    return flags


def _join(words: Sequence[str] | Mapping[str, object]) -> str:
    return f'"{" ".join(words)}"'


# bash splits words at `=` and `:`, and replaces only the text after the last of them.
_BASH = """\
_dynemo_run() {
    local line=${COMP_LINE:0:COMP_POINT} offers flags at is_file values=-
    local word=${line##*[[:space:]]}
    local -a given
    read -ra given <<<"${line%%"$word"}"
    local count=${#given[@]}
    local last=${given[count-1]}
    [[ $word == --*=* ]] && last=${word%%%%=*} word=${word#*=}
    case "${given[1]} ${given[2]} " in
%(cases)s
    esac
    if [[ $values != - ]]; then offers=$values is_file=$(( ! ${#values} ))
    elif [[ $word == -* ]]; then offers=$flags is_file=0
    elif (( count == 1 )); then offers+=" %(commands)s"
    elif (( count > at )); then offers=""
    fi
    COMPREPLY=($(compgen -W "$offers" -- "$word"))
    local i piece=${COMP_WORDS[COMP_CWORD]##*[=:]}
    local before=${word%%"$piece"}
    for i in "${!COMPREPLY[@]}"; do COMPREPLY[i]=${COMPREPLY[i]#"$before"}; done
    [[ ${COMPREPLY[0]} == *[=:/] ]] && compopt -o nospace 2>/dev/null
    (( is_file )) || compopt +o bashdefault +o default 2>/dev/null
    return 0
}
complete -o bashdefault -o default -F _dynemo_run dynemo-run
"""
_ZSH = """\
_dynemo_run() {
    local offers flags at is_file values=- word=$words[CURRENT] last=$words[CURRENT-1]
    local -a given=("${(@)words[1,CURRENT-1]}")
    [[ $word == --*=* ]] && last=${word%%%%=*} word=${word#*=} && compset -P '--*='
    case "$given[2] $given[3] " in
%(cases)s
    esac
    if [[ $values != - ]]; then offers=$values is_file=$(( ! $#values ))
    elif [[ $word == -* ]]; then offers=$flags is_file=0
    elif (( $#given == 1 )); then offers+=" %(commands)s"
    elif (( $#given > at )); then offers=""
    fi
    local -a every=(${=offers})
    compadd -- ${every:#*[=:/]}
    compadd -S '' -- ${(M)every:#*[=:/]}
    if (( is_file )); then
        compset -P 'in=batch:'
        _files
    fi
}
compdef _dynemo_run dynemo-run
"""
_FISH = """\
function __dynemo_run_offers
    set -l given (commandline -opc)
    set -l word (commandline -ct)
    set -l last $given[-1]
    set -l before ""
    if string match -q -- '--*=*' "$word"
        set last (string split -m 1 = -- "$word")[1]
        set before "$last="
    end
    set -l offers
    set -l flags
    set -l at
    set -l is_file
    set -l is_value 0
    set -l values
    switch "$given[2] $given[3] "
%(cases)s
    end
    if test $is_value = 1
        set offers "$before"$values
        test -z "$values"; and set is_file 1; or set is_file 0
    else if string match -q -- '-*' "$word"
        set offers $flags
        set is_file 0
    else if test (count $given) -eq 1
        set offers $offers %(commands)s
    else if test (count $given) -gt $at
        set offers
    end
    string join \\n -- $offers
    if string match -q -- 'in=batch:*' "$word"
        string replace -r -- '^' 'in=batch:' (__fish_complete_path (string sub -s 10 -- "$word"))
    else if test $is_file = 1
        __fish_complete_path "$word"
    end
end
complete -c dynemo-run -f -a '(__dynemo_run_offers)'
"""
