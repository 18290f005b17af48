"""`dynemo-run completion SHELL`: a script that completes the command, made from its own tables."""

from collections.abc import Sequence

SHELLS = ("bash", "zsh", "fish")

# `=` ends a word in bash, so that `in=ht` arrives as `in`, `=` and `ht`.
_BASH = """\
_dynemo_run() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} side="" words=""
    if [[ $cur == "=" ]]; then side=$prev; cur=""
    elif [[ $prev == "=" ]]; then side=${{COMP_WORDS[COMP_CWORD-2]}}; fi
    case $side/${{COMP_WORDS[1]}}/$cur in
        in/*) words="{inputs}" ;;
        out/*) words="{outputs}" ;;
        */completion/*) words="bash zsh fish" ;;
        */engine/-*) words="--device --python --json --help" ;;
        */engine/*) words="install remove list doctor {engines}" ;;
        */render/-*) words="--messages --tools --kwargs --ids --as-given --help" ;;
        *//-*|*/*/-*) words="{flags}" ;;
        *) words="{words}" ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
    # Where no word fits, bash completes file names.
    [[ ${{COMPREPLY[0]}} == *[=:] ]] && compopt -o nospace 2>/dev/null
}}
complete -o bashdefault -o default -F _dynemo_run dynemo-run
"""
_ZSH = """\
#compdef dynemo-run
_dynemo_run() {{
    compadd -- {sides} {words} {flags}
    _files
}}
compdef _dynemo_run dynemo-run
"""
_FISH = """\
complete -c dynemo-run -a "{sides} {words}"
{fish_flags}
"""


def script(
    shell: str,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    engines: Sequence[str],
    flags: Sequence[str],
    commands: Sequence[str],
) -> str:
    """The script for one of `SHELLS`; the user's start-up file evaluates it."""
    sides = [f"in={name}" for name in inputs] + [f"out={name}" for name in outputs]
    template = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]
    plain = [*commands] if shell != "bash" else ["in=", "out=", *commands]
    return template.format(
        inputs=" ".join(inputs),
        outputs=" ".join(outputs),
        engines=" ".join(engines),
        sides=" ".join(sides),
        words=" ".join(plain),
        flags=" ".join(flags),
        fish_flags="\n".join(f"complete -c dynemo-run -l {flag[2:]} -r" for flag in flags),
    )
