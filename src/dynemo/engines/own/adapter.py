"""`out=FILE.py`: the user's own engine. `dynemo.engine_api` documents the content of the file."""

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
_MOST_IDS = 1 << 31  # the limit if the model's vocabulary size is unknown


class Own:
    version = "own"
    device = "cpu"  # assumed; the file does not tell
    slots = 64

    def __init__(self, file: str, module: ModuleType, context_length: int, vocabulary: int) -> None:
        self.context_length = context_length
        self._ids = vocabulary or _MOST_IDS
        self._file = file
        self._name = os.path.basename(file)
        _check_version(module, self._name)
        self._generate = _generate_of(module, self._name)
        self._gives = _gives(module, self._name)
        sampling = _sampling(module, self._name)
        if self._gives == "tokens":
            sampling.append("stop_ids")  # the adapter ends the answer
        self.capabilities = Capabilities(
            takes="messages", gives=self._gives, shows_control=True, sampling=sampling
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
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # must not end other answers
            raise _failed(self._file, error) from error
        finally:
            self._running -= 1

    def _items(self, value: Any) -> list[Any]:
        wanted = int if self._gives == "tokens" else str
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, wanted) or isinstance(item, bool):
                raise EngineError(
                    f'"{self._name}" yielded {item!r}. It gives {self._gives}, so each value '
                    f"must be {wanted.__name__} or a list of these."
                )
            if isinstance(item, int) and not 0 <= item < self._ids:
                raise EngineError(
                    f'"{self._name}" yielded {item}. Token ids of this model are below {self._ids}.'
                )
            if isinstance(item, str):
                item.encode()  # half a character must end this answer, not break a frame
        return items

    async def load(self) -> Load:
        return Load(running=self._running)


def _public(request: Request) -> EngineRequest:
    """Converts a request to the form of the public API."""
    sampling = request.sampling
    return EngineRequest(
        id=request.id,
        messages=request.messages,
        tools=request.tools,
        prompt=request.prompt,
        token_ids=request.token_ids,
        max_tokens=request.max_tokens,
        cache_salt=request.cache_salt,
        sampling=SamplingSettings(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            seed=sampling.seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=sampling.logit_bias,
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
            f'"{name}" has no `async def generate(request)` that yields. Define it: it produces '
            "the answers."
        )
    try:
        inspect.signature(found).bind("request")
    except TypeError:
        raise UsageError(f'`generate` in "{name}" must take one argument, the request.') from None
    return found


def _check_version(module: ModuleType, name: str) -> None:
    wanted = getattr(module, "API", VERSION)
    if wanted != VERSION:
        raise UsageError(
            f'"{name}" needs version {wanted!r} of the engine API, but this dynemo-run has '
            f"version {VERSION}."
        )


def _gives(module: ModuleType, name: str) -> Literal["tokens", "text"]:
    gives = getattr(module, "GIVES", None)
    if gives in ("tokens", "text"):
        return gives  # type: ignore[no-any-return]
    if gives is not None:
        raise UsageError(f"GIVES in \"{name}\" must be 'tokens' or 'text', not {gives!r}.")
    hint = inspect.get_annotations(module.generate).get("return", "")
    return "tokens" if re.search(r"\bint\b", str(hint)) else "text"


def _sampling(module: ModuleType, name: str) -> list[str]:
    names = getattr(module, "SAMPLING", SETTINGS)
    if not isinstance(names, list | tuple | set | frozenset):
        raise UsageError(f'SAMPLING in "{name}" must be a list of names, not {names!r}.')
    for field in names:
        if field not in SETTINGS:
            raise UsageError(
                f'SAMPLING in "{name}" names {field!r}. Choose from {", ".join(SETTINGS)}.'
            )
    return list(names)


def _failed(file: str, error: BaseException) -> EngineError:
    """Returns an EngineError for an exception in the file.

    Its traceback starts in the file: the frames above it are dynemo's own.
    """
    name = os.path.basename(file)
    steps = traceback.extract_tb(error.__traceback__)
    while steps and steps[0].filename != file:
        del steps[0]
    lines = [*steps.format(), *traceback.format_exception_only(error)]
    failed = EngineError(f'"{name}" failed: {type(error).__name__}: {str(error).rstrip(".")}.')
    failed.trace = "Traceback (most recent call last):\n" + "".join(lines).rstrip()
    return failed


async def _imported(spec: EngineSpec) -> ModuleType:
    name = os.path.basename(spec.argument)
    sys.path.append(os.path.dirname(spec.argument))  # so that it can import the files beside it
    # A prefix keeps a file such as json.py from replacing another module.
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
