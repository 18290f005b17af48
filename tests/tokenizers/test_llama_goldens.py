"""Real vocabularies against recorded answers of llama.cpp, for each id and each delta."""

import json
from pathlib import Path

import pytest

from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.gguf.tokenizer import LlamaTokenizer, load_tokenizer
from support.gguf_files import VOCABULARIES, unpack_vocabulary, vocabulary_goldens


@pytest.fixture(scope="module", params=VOCABULARIES)
def vocabulary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, LlamaTokenizer]:
    name: str = request.param
    folder: Path = tmp_path_factory.mktemp("vocabulary")
    return name, load_tokenizer(read_gguf(unpack_vocabulary(name, folder)).metadata)


def test_ids_and_text(vocabulary: tuple[str, LlamaTokenizer]) -> None:
    name, tokenizer = vocabulary
    lines = vocabulary_goldens(name).splitlines()
    assert len(lines) == 1287
    for line in lines:
        golden = json.loads(line)
        ids = tokenizer.encode(
            golden["text"],
            add_special=golden["add_special"],
            parse_special=golden["parse_special"],
        )
        assert ids == golden["ids"], golden
        if "detokenized" not in golden:
            continue
        assert tokenizer.decode(ids) == golden["detokenized"]
        stream = tokenizer.detokenizer()
        deltas = [stream.feed([token_id]) for token_id in ids]
        assert "".join(deltas) + stream.flush() == golden["detokenized"]


def test_names_of_tokens(vocabulary: tuple[str, LlamaTokenizer]) -> None:
    _, tokenizer = vocabulary
    for token_id in (0, 1, tokenizer.vocab_size - 1):
        text = tokenizer.token_text(token_id)
        assert text is not None
        assert tokenizer.token_id(text) == token_id
    assert tokenizer.token_text(tokenizer.vocab_size) is None
    assert tokenizer.token_text(-1) is None
    assert tokenizer.token_id("no such token, surely") is None
