"""Control tokens in the texts of mistral.rs.

By default the wheel leaves out every added token of the form `<...>`, control token or not. A
request with a tool gets them all, spelled. So each request has a tool, which no prompt mentions and
the model cannot call. The adapter leaves out the control tokens that a request does not show.
"""

from pathlib import Path
from typing import Any

from msgspec import DecodeError, Struct, json

from dynemo.engines.mistralrs.model import is_gguf
from dynemo.errors import ModelError
from dynemo.foreign import decode_json
from dynemo.messages.spec import EngineSpec
from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.gguf.vocab import CONTROL, UNKNOWN, load_vocabulary

#: The wheel puts a space in the place of this character, also inside a control token.
_SPACE = "▁"
_TOOL = {"type": "function", "function": {"name": "none", "parameters": {"type": "object"}}}


class _Added(Struct):
    content: str
    special: bool = False


class _File(Struct):
    added_tokens: list[_Added] = []


def with_control_tokens() -> dict[str, Any]:
    """Returns the arguments of a `ChatCompletionRequest` that make it spell all added tokens."""
    import mistralrs

    tool = json.encode(_TOOL).decode()
    return {"tool_schemas": [tool], "tool_choice": mistralrs.ToolChoice.NoTools}


def control_spellings(spec: EngineSpec) -> dict[str, str]:
    """Returns the spelling of each control token, by the text that the wheel gives for it.

    Raises ModelError if the model's vocabulary cannot be read.
    """
    if is_gguf(spec) and not spec.tokenizer_source:
        vocabulary = load_vocabulary(read_gguf(Path(spec.model)).metadata)
        pairs = zip(vocabulary.tokens, vocabulary.attributes, strict=True)
        names = [text for text, attribute in pairs if attribute & (CONTROL | UNKNOWN)]
    else:
        file = Path(spec.tokenizer_source or spec.model) / "tokenizer.json"
        try:
            added = decode_json(file.read_bytes(), _File).added_tokens
        except OSError as error:
            raise ModelError(f'"{file}" cannot be read: {error.strerror}.') from error
        except DecodeError as error:
            raise ModelError(f'"{file}" is not a tokenizer: {error}.') from error
        names = [token.content for token in added if token.special]
    return {given: name for name in names for given in (name, name.replace(_SPACE, " "))}
