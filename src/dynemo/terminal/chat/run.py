"""A chat in the terminal (`in=text`)."""

import signal
import sys
from collections.abc import Callable
from time import perf_counter

from msgspec import structs
from prompt_toolkit import PromptSession
from prompt_toolkit.patch_stdout import patch_stdout

from dynemo.errors import ContextLengthExceeded, DynemoError, Unavailable, UsageError
from dynemo.messages.ask import Ask, Turn
from dynemo.serving.pipeline import Job, Pipeline
from dynemo.terminal.chat.commands import ChatSession, obey, parse
from dynemo.terminal.chat.conversation import ChatRound, Conversation, fit
from dynemo.terminal.chat.keyboard import held_terminal, mark_pastes, open_history, prompt_session
from dynemo.terminal.interrupts import Interrupted, until_signal
from dynemo.terminal.log_lines import held_log, log_above
from dynemo.terminal.output import Output
from dynemo.terminal.reply import Reply, listen
from dynemo.terminal.screen import clean, count, dim, duration, red, visible
from dynemo.terminal.until_ready import until_ready

#: How often a model that says it is not in trouble may decline before the chat gives up.
TRIES = 5


async def chat(pipeline: Pipeline, *, model: str, system: str | None, settings: Ask) -> int:
    """Talk with `model` until the user leaves, and return the exit code: 0, or 128 + its number
    after SIGTERM or SIGHUP. Raises UsageError where there is no terminal."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("A chat needs a terminal: use in=stdin for a prompt from a file or pipe.")
    settings = structs.replace(settings, n=1)
    state = ChatSession(pipeline, model, settings, settings, Conversation(system or None))
    with held_terminal():
        _tell("/help lists the commands, Ctrl-D leaves.")
        talk = converse(state, prompt_session(open_history()))
        try:
            await until_signal(talk, signal.SIGTERM, signal.SIGHUP)
        except Interrupted as stop:
            return stop.exit_code
    return 0


async def converse(chat: ChatSession, session: PromptSession[str]) -> None:
    """The loop: a line, then what it asks for, until the user leaves."""
    while True:
        try:
            with patch_stdout(raw=True), log_above():
                line = clean(await session.prompt_async())
        except KeyboardInterrupt:
            _tell("Ctrl-D or /exit leaves.")
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
                print(visible(obey(chat, *command)))
        except DynemoError as error:
            _tell_error(error)


async def _retry(chat: ChatSession) -> None:
    taken = chat.talk.take_back()
    if taken is None:
        raise UsageError("There is no message yet to answer anew.")
    question, turn = taken
    try:
        await respond(chat, question)
    finally:
        # Where the new try gave nothing, the answer that was there is better than none.
        if turn is not None and chat.talk.unanswered is not None:
            chat.talk.turns.append(turn)
            chat.talk.unanswered = None


async def respond(chat: ChatSession, question: str) -> None:
    """Ask, print the answer as it comes, and keep both. Ctrl-C stops the answer.

    Raises DynemoError for what went wrong; what came before it is kept.
    """
    chat.talk.unanswered = question
    reply = Reply()
    is_stopped = True
    try:
        mark_pastes()
        with held_log():
            await until_signal(_speak(chat, question, reply), signal.SIGINT)
        is_stopped = False
    except Interrupted:
        _tell(_closing(reply, "stopped"))
    except ContextLengthExceeded:
        # Asking the same again is of no use: it does not fit.
        chat.talk.unanswered = None
        raise
    finally:
        if reply.text or not is_stopped:
            chat.talk.turns.append(ChatRound(question, reply.text, is_stopped))
            chat.talk.unanswered = None
    if not is_stopped:
        _tell(_closing(reply, _cut(chat, reply)))


async def _speak(chat: ChatSession, question: str, reply: Reply) -> None:
    outlet = Output(sys.stdout.fileno())
    try:
        await _ask(chat, question, reply, lambda text: outlet.send(visible(text).encode()))
        await outlet.drain()
    except OSError as error:
        raise DynemoError(f"The answer cannot be written: {error.strerror}.") from error
    finally:
        outlet.close()
        if reply.parts and not reply.text.endswith("\n"):
            print(flush=True)


async def _ask(chat: ChatSession, question: str, reply: Reply, say: Callable[[str], None]) -> None:
    """Listen to the answer, once the model can give one."""
    tries = 0
    while True:
        try:
            job = _prepare(chat, question)
            return await listen(chat.pipeline.run(job), reply, say)
        except Unavailable as error:
            tries += 1
            if not chat.pipeline.trouble and tries >= TRIES:
                raise
            await until_ready(chat.pipeline, error, tell=_tell_wait)
            reply.started = perf_counter()


def _prepare(chat: ChatSession, question: str) -> Job:
    def prepare(turns: list[Turn]) -> Job:
        ask = structs.replace(chat.settings, model=chat.model, turns=turns)
        return chat.pipeline.prepare(ask)

    job, dropped = fit(chat.talk, question, prepare)
    if dropped:
        turns = "The oldest turn is" if dropped == 1 else f"The {dropped:,} oldest turns are"
        _tell(
            f"The context of {job.model.context_length:,} tokens is full. "
            f"{turns} no longer sent to the model."
        )
    return job


def _cut(chat: ChatSession, reply: Reply) -> str:
    finish = reply.finish
    if finish is None or finish.reason != "length":
        return ""
    served = chat.pipeline.models.get(chat.model)
    used = finish.prompt_tokens + finish.completion_tokens
    is_full = served is not None and used >= served.context_length
    return "cut: the context is full" if is_full else "cut at max_tokens"


def _closing(reply: Reply, end: str) -> str:
    words = []
    if reply.ttft is not None:
        words += [f"TTFT {duration(reply.ttft)}", count(reply.tokens, "token")]
    if reply.rate is not None:
        words.append(f"{reply.rate:,.1f} tokens/s")
    return " · ".join([*words, end] if end else words)


def _tell(text: str) -> None:
    print(dim(visible(text)), flush=True)


def _tell_wait(reason: str) -> None:
    _tell(f"Waiting for the model: {reason} (Ctrl-C stops waiting)")


def _tell_error(error: DynemoError) -> None:
    print(red(visible(str(error))), flush=True)
