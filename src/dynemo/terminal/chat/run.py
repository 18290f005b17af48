"""A chat in the terminal (`in=text`)."""

import signal
import sys
from collections.abc import Callable
from time import perf_counter

from msgspec import structs
from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout

from dynemo.errors import ContextLengthExceeded, DynemoError, Unavailable, UsageError
from dynemo.interrupt import hangups
from dynemo.messages.answer import Piece
from dynemo.messages.ask import Ask, Turn, text_turn
from dynemo.prompt.errors import RenderTooLong
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.serving.rendering import render_apart
from dynemo.spelling import visible, with_reason
from dynemo.terminal.chat.commands import ChatSession, parse, run_command
from dynemo.terminal.chat.conversation import ChatRound, Conversation, before_calls, fit
from dynemo.terminal.chat.keyboard import held_terminal, mark_pastes, open_history, prompt_session
from dynemo.terminal.chat.results import ask_results
from dynemo.terminal.interrupts import Interrupted, until_signal
from dynemo.terminal.log_lines import held_log, log_above
from dynemo.terminal.output import Output
from dynemo.terminal.reply import Reply, listen
from dynemo.terminal.screen import clean, count, dim, duration, red
from dynemo.terminal.spoken import Spoken
from dynemo.terminal.until_ready import until_ready

#: How often a model that reports no trouble may decline before the chat gives up.
TRIES = 5


async def chat(pipeline: Pipeline, *, model: str, system: str | None, settings: Ask) -> int:
    """Chats with `model` until the user leaves. Returns the exit code.

    The code is 0, or 128 + signal number after SIGTERM or SIGHUP. Raises UsageError without a
    terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "A chat needs a terminal. Use in=stdin for a prompt from a file or a pipe."
        )
    settings = structs.replace(settings, n=1)
    state = ChatSession(pipeline, model, settings, settings, Conversation(system or None))
    with held_terminal():
        _print_note("/help lists the commands. Ctrl-D leaves.")
        loop = converse(state, prompt_session(open_history()))
        try:
            await until_signal(loop, signal.SIGTERM, *hangups())
        except Interrupted as stop:
            return stop.exit_code
    return 0


async def converse(chat: ChatSession, session: PromptSession[str]) -> None:
    """Reads lines and runs or answers them, until the user leaves."""
    while True:
        try:
            with patch_stdout(raw=True), log_above():
                line = clean(await session.prompt_async())
        except KeyboardInterrupt:
            _print_note("Press Ctrl-D or type /exit to leave.")
            continue
        except EOFError:
            return
        if not line.strip():
            continue
        try:
            command = parse(line)
            if command is None:
                await respond(chat, (text_turn("user", line.strip()),))
            elif command[0] == "exit":
                return
            elif command[0] == "retry":
                await _retry(chat)
            else:
                print(visible(run_command(chat, *command)))
        except DynemoError as error:
            _print_error(error)


async def _retry(chat: ChatSession) -> None:
    taken = chat.conversation.take_back()
    if taken is None:
        raise UsageError("There is no message to answer again.")
    turns, old = taken
    left = len(chat.conversation.rounds)
    try:
        await respond(chat, turns)
    finally:
        # If the new try got no answer, keep the old answer.
        if old is not None and len(chat.conversation.rounds) == left:
            chat.conversation.rounds.append(old)
            chat.conversation.unanswered = ()


async def respond(chat: ChatSession, turns: tuple[Turn, ...]) -> None:
    """Answers a question, prints the answer while it streams, and keeps both.

    While the model calls tools, asks the user for their results and continues. `turns` is the
    question, and the calls and results after it. Ctrl-C stops the answer.

    Raises DynemoError after a failure, and keeps the text before it.
    """
    while True:
        reply = await _answer(chat, turns)
        if reply is None or not reply.is_calling:
            return
        results = await ask_results(reply.calls)
        if results is None:
            _print_note("The calls are dropped. /retry answers the last message again.")
            return
        turns = (*turns, reply.turn, *results)


async def _answer(chat: ChatSession, turns: tuple[Turn, ...]) -> Reply | None:
    """Answers the last of `turns` once. Keeps the round unless the answer calls tools. Returns None
    if Ctrl-C stopped it."""
    talk = chat.conversation
    talk.unanswered = turns
    reply = Reply()
    is_stopped = True
    try:
        mark_pastes()
        with held_log():
            await until_signal(_stream_answer(chat, turns, reply), signal.SIGINT)
        is_stopped = False
    except Interrupted:
        _print_note(_statistics(reply, "stopped"))
    except ContextLengthExceeded:
        # Trying again would not help: the question, or the last results, do not fit.
        talk.unanswered = before_calls(turns)
        raise
    finally:
        if not reply.is_calling and (reply.text or not is_stopped):
            talk.rounds.append(ChatRound((*turns, reply.turn), is_stopped))
            talk.unanswered = ()
    if is_stopped:
        return None
    _print_note(_statistics(reply, _cut_reason(chat, reply)))
    return reply


async def _stream_answer(chat: ChatSession, turns: tuple[Turn, ...], reply: Reply) -> None:
    output = Output(sys.stdout.fileno())
    spoken = Spoken(lambda text: output.send(text.encode()))
    try:
        await _ask(chat, turns, reply, spoken.write)
        await output.drain()
    except OSError as error:
        raise DynemoError(f"The answer cannot be written: {error.strerror}.") from error
    finally:
        output.close()
        if spoken.is_line_open:
            print(flush=True)


async def _ask(
    chat: ChatSession, turns: tuple[Turn, ...], reply: Reply, write: Callable[[Piece], None]
) -> None:
    """Streams the answer to `write`. Waits until the model can answer."""
    tries = 0
    while True:
        try:
            job = _prepare(chat, turns)
            return await listen(chat.pipeline.run(job), reply, write)
        except Unavailable as error:
            tries += 1
            if not chat.pipeline.trouble and tries >= TRIES:
                raise
            await until_ready(chat.pipeline, error, notify=_print_wait)
            reply.started = perf_counter()


def _prepare(chat: ChatSession, asked: tuple[Turn, ...]) -> Job:
    def prepare(turns: list[Turn]) -> Job:
        ask = structs.replace(chat.settings, model=chat.model, turns=turns)
        try:
            return chat.pipeline.prepare(ask)
        except RenderTooLong:
            return chat.pipeline.prepare(ask, render=render_apart)

    job, dropped = fit(chat.conversation, asked, prepare)
    if dropped:
        turns = "The oldest turn is" if dropped == 1 else f"The {dropped:,} oldest turns are"
        _print_note(
            f"The context of {job.model.context_length:,} tokens is full. "
            f"{turns} no longer sent to the model."
        )
    return job


def _cut_reason(chat: ChatSession, reply: Reply) -> str:
    finish = reply.finish
    if finish is None or finish.reason != "length":
        return ""
    served = chat.pipeline.models.get(chat.model)
    used = finish.prompt_tokens + finish.completion_tokens
    is_full = served is not None and used >= served.context_length
    return "cut: the context is full" if is_full else "cut at max_tokens"


def _statistics(reply: Reply, end: str) -> str:
    parts = []
    if reply.ttft is not None:
        parts += [f"TTFT {duration(reply.ttft)}", count(reply.tokens, "token")]
    if reply.rate is not None:
        parts.append(f"{reply.rate:,.1f} tokens/s")
    return " · ".join([*parts, end] if end else parts)


def _print_note(text: str) -> None:
    print(dim(text), flush=True)


def _print_wait(reason: str) -> None:
    waiting = with_reason("Waiting for the model", reason)
    _print_note(f"{waiting} Press Ctrl-C to stop waiting.")


def _print_error(error: DynemoError) -> None:
    print(red(str(error)), flush=True)
