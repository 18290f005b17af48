"""Tokens/s of two servers."""

from bench.plan import Plan, Subject, chat
from bench.rows.turns import Pair, in_turns
from bench.servers import Served
from bench.table import Row, ratio

_PROMPT = "Tell me a long story about a lighthouse, number {}."
_GOAL = 0.95


def speed_row(
    plan: Plan, both: Pair, subject: Subject, streams: int, how: str = "", *, goal: float = _GOAL
) -> Row:
    """Returns a row for this number of streams. `how` describes our server in the table."""
    body = chat(_PROMPT.format(streams), max_tokens=plan.tokens, ignore_eos=True)

    def measure(server: Served) -> float:
        outcome = both.ask(server, body, streams)
        if outcome.tokens != plan.tokens * streams:
            raise RuntimeError(f"{outcome.tokens} tokens, not {plan.tokens} x {streams}")
        return outcome.rate

    one, other = in_turns(plan.rounds, both, measure)
    what = f"tokens/s, {streams} stream{'s' * (streams > 1)}, {subject.name}{how}"
    bound = goal if subject.has_goal else None
    return ratio(what, "tok/s", one, other, goal=bound, is_floor=True)


def check_same_prompt(both: Pair) -> None:
    body = chat(_PROMPT, max_tokens=4, ignore_eos=True)
    counts = {both.ask(server, body).prompt_tokens for server in (both.ours, both.peer)}
    if len(counts) > 1:
        raise RuntimeError(f"the two were given different prompts: {counts} tokens")
