"""`out=FILE.py`: an engine of the user's own. `dynemo.engine_api` says what the file may hold."""

import asyncio
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from types import ModuleType
from typing import Any, Literal

from dynemo.engine_api import SETTINGS, VERSION, EngineRequest, SamplingSettings
from dynemo.engines.options import refuse_options
from dynemo.errors import EngineError, UsageError
from dynemo.messages.answer import Delta, Finish, FinishReason
from dynemo.messages.records import Capabilities, Load
from dynemo.messages.request import Request
from dynemo.messages.spec import EngineSpec

_CONTEXT = 8192
_MOST_IDS = 1 << 31  # where nobody knows the model's own


class Own:
    version = "own"
    device = "cpu"  # as far as we know
    slots = 64

    def __init__(self, file: str, module: ModuleType, context_length: int, vocabulary: int) -> None:
        self.context_length = context_length
        self._ids = vocabulary or _MOST_IDS
        self._file = file
        self._name = os.path.basename(file)
        _check_version(module, self._name)
        self._generate = _generate_of(module, self._name)
        self._gives = _gives(module, self._name)
        self.capabilities = Capabilities(
            takes="messages", gives=self._gives, sampling=_sampling(module, self._name)
        )
        self._running = 0

    async def generate(self, request: Request) -> AsyncGenerator[Delta, None]:
        self._running += 1
        count = 0
        reason: FinishReason = "stop"
        try:
            async with aclosing(self._generate(_public(request))) as values:
                async for value in values:
                    items = self._items(value)[: request.max_tokens - count]
                    if self._gives == "tokens":
                        items, is_over = _up_to_stop(items, request.stop_ids)
                    else:
                        is_over = False
                    count += len(items)
                    yield Delta(items) if self._gives == "tokens" else Delta(texts=items)
                    if is_over:
                        break
                    if count >= request.max_tokens:
                        reason = "length"
                        break
            yield Delta(finish=Finish(reason, len(request.token_ids), count))
        except EngineError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # no end of the others' answers
            raise _failed(self._file, error) from error
        finally:
            self._running -= 1

    def _items(self, value: Any) -> list[Any]:
        wanted = int if self._gives == "tokens" else str
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, wanted) or isinstance(item, bool):
                raise EngineError(
                    f"{self._name} yielded {item!r}; it gives {self._gives}, "
                    f"so that each value is {wanted.__name__}, or a list of them."
                )
            if isinstance(item, int) and not 0 <= item < self._ids:
                raise EngineError(
                    f"{self._name} yielded {item}, and the model's token ids are below {self._ids}."
                )
            if isinstance(item, str):
                item.encode()  # half of a character ends this answer, and not the host's frame
        return items

    async def load(self) -> Load:
        return Load(running=self._running)


def _public(request: Request) -> EngineRequest:
    """The request in the form that the file was written for."""
    asked = request.sampling
    return EngineRequest(
        id=request.id,
        messages=request.messages,
        prompt=request.prompt,
        token_ids=request.token_ids,
        max_tokens=request.max_tokens,
        sampling=SamplingSettings(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k,
            min_p=asked.min_p,
            seed=asked.seed,
            presence_penalty=asked.presence_penalty,
            frequency_penalty=asked.frequency_penalty,
            repetition_penalty=asked.repetition_penalty,
            logit_bias=asked.logit_bias,
        ),
        stop_ids=request.stop_ids,
        ignore_eos=request.ignore_eos,
        continued=request.continued,
        traceparent=request.traceparent,
    )


def _up_to_stop(ids: list[int], stop_ids: list[int]) -> tuple[list[int], bool]:
    for at, token_id in enumerate(ids):
        if token_id in stop_ids:
            return ids[: at + 1], True
    return ids, False


def _generate_of(
    module: ModuleType, name: str
) -> Callable[[EngineRequest], AsyncGenerator[Any, None]]:
    found = getattr(module, "generate", None)
    if not inspect.isasyncgenfunction(found):
        raise UsageError(
            f"{name} has no `async def generate(request)` that yields; that is what answers."
        )
    try:
        inspect.signature(found).bind("request")
    except TypeError:
        raise UsageError(f"`generate` in {name} takes one argument, the request.") from None
    return found


def _check_version(module: ModuleType, name: str) -> None:
    wanted = getattr(module, "API", VERSION)
    if wanted != VERSION:
        raise UsageError(
            f"{name} is written for version {wanted!r} of the engine API; "
            f"this dynemo-run has version {VERSION}."
        )


def _gives(module: ModuleType, name: str) -> Literal["tokens", "text"]:
    said = getattr(module, "GIVES", None)
    if said in ("tokens", "text"):
        return said  # type: ignore[no-any-return]
    if said is not None:
        raise UsageError(f"GIVES in {name} is 'tokens' or 'text', not {said!r}.")
    hint = inspect.get_annotations(module.generate).get("return", "")
    return "tokens" if re.search(r"\bint\b", str(hint)) else "text"


def _sampling(module: ModuleType, name: str) -> list[str]:
    said = getattr(module, "SAMPLING", SETTINGS)
    if not isinstance(said, list | tuple | set | frozenset):
        raise UsageError(f"SAMPLING in {name} is a list of names, not {said!r}.")
    for field in said:
        if field not in SETTINGS:
            raise UsageError(
                f"SAMPLING in {name} names {field!r}; there are {', '.join(SETTINGS)}."
            )
    return list(said)


def _failed(file: str, error: BaseException) -> EngineError:
    """With the traceback from the file's own first line on: what is above it is ours."""
    name = os.path.basename(file)
    steps = traceback.extract_tb(error.__traceback__)
    while steps and steps[0].filename != file:
        del steps[0]
    lines = [*steps.format(), *traceback.format_exception_only(error)]
    failed = EngineError(f"{name}: {type(error).__name__}: {error}")
    failed.trace = "Traceback (most recent call last):\n" + "".join(lines).rstrip()
    return failed


async def _imported(spec: EngineSpec) -> ModuleType:
    name = os.path.basename(spec.argument)
    sys.path.append(os.path.dirname(spec.argument))  # for what lies beside it
    # Under a name of its own: json.py must not stand in for another module.
    made = importlib.util.spec_from_file_location(f"own_{name[:-3]}", spec.argument)
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    sys.modules[made.name] = module
    try:
        made.loader.exec_module(module)
        load = getattr(module, "load", None)
        if inspect.iscoroutinefunction(load):
            await load(spec.model)
        elif load is not None:
            await asyncio.to_thread(load, spec.model)
    except (Exception, SystemExit) as error:
        failed = _failed(spec.argument, error)
        problem = UsageError(str(failed))
        problem.trace = failed.trace
        raise problem from error
    return module


@asynccontextmanager
async def open_engine(spec: EngineSpec) -> AsyncIterator[Own]:
    refuse_options(spec, os.path.basename(spec.argument))
    module = await _imported(spec)
    context_length = spec.context_length or spec.model_context or _CONTEXT
    yield Own(spec.argument, module, context_length, spec.vocabulary)
