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
from dynemo.messages.ask import Ask, Turn
from dynemo.prompt.errors import RenderTooLong
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.serving.rendering import render_apart
from dynemo.spelling import visible, with_reason
from dynemo.terminal.chat.commands import ChatSession, parse, run_command
from dynemo.terminal.chat.conversation import ChatRound, Conversation, fit
from dynemo.terminal.chat.keyboard import held_terminal, mark_pastes, open_history, prompt_session
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
                await respond(chat, line.strip())
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
    question, turn = taken
    try:
        await respond(chat, question)
    finally:
        # If the new try got no answer, keep the old answer.
        if turn is not None and chat.conversation.unanswered is not None:
            chat.conversation.turns.append(turn)
            chat.conversation.unanswered = None


async def respond(chat: ChatSession, question: str) -> None:
    """Answers a question, prints the answer while it streams, and keeps both.

    Ctrl-C stops the answer.

    Raises DynemoError after a failure, and keeps the text before it.
    """
    chat.conversation.unanswered = question
    reply = Reply()
    is_stopped = True
    try:
        mark_pastes()
        with held_log():
            await until_signal(_stream_answer(chat, question, reply), signal.SIGINT)
        is_stopped = False
    except Interrupted:
        _print_note(_statistics(reply, "stopped"))
    except ContextLengthExceeded:
        # Trying again would not help: the question does not fit.
        chat.conversation.unanswered = None
        raise
    finally:
        if reply.text or not is_stopped:
            chat.conversation.turns.append(ChatRound(question, reply.text, is_stopped))
            chat.conversation.unanswered = None
    if not is_stopped:
        _print_note(_statistics(reply, _cut_reason(chat, reply)))


async def _stream_answer(chat: ChatSession, question: str, reply: Reply) -> None:
    output = Output(sys.stdout.fileno())
    spoken = Spoken(lambda text: output.send(text.encode()))
    try:
        await _ask(chat, question, reply, spoken.write)
        await output.drain()
    except OSError as error:
        raise DynemoError(f"The answer cannot be written: {error.strerror}.") from error
    finally:
        output.close()
        if spoken.is_line_open:
            print(flush=True)


async def _ask(
    chat: ChatSession, question: str, reply: Reply, write: Callable[[Piece], None]
) -> None:
    """Streams the answer to `write`. Waits until the model can answer."""
    tries = 0
    while True:
        try:
            job = _prepare(chat, question)
            return await listen(chat.pipeline.run(job), reply, write)
        except Unavailable as error:
            tries += 1
            if not chat.pipeline.trouble and tries >= TRIES:
                raise
            await until_ready(chat.pipeline, error, notify=_print_wait)
            reply.started = perf_counter()


def _prepare(chat: ChatSession, question: str) -> Job:
    def prepare(turns: list[Turn]) -> Job:
        ask = structs.replace(chat.settings, model=chat.model, turns=turns)
        try:
            return chat.pipeline.prepare(ask)
        except RenderTooLong:
            return chat.pipeline.prepare(ask, render=render_apart)

    job, dropped = fit(chat.conversation, question, prepare)
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
