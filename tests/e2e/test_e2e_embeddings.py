"""`POST /v1/embeddings`: the demo model with `-- --embeddings`, and a BERT with random weights."""

import json
import math
import random
import struct
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI

from dynemo.models.gguf import read_gguf
from support.command import Server, run, serving
from support.gguf_files import Tensor, unpack_vocabulary, write_gguf

TEXTS = ["The capital of Peru", "Count to ten", "café 中文 — naïve!"]
_WIDTH = 32
_CONTEXT = 64


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--", "--embeddings") as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.api, api_key="none", max_retries=0) as made:
        yield made


def _embed(client: OpenAI, given: Any, **said: Any) -> list[list[float]]:
    answer = client.embeddings.create(
        model=next(iter(client.models.list())).id, input=given, **said
    )
    assert [each.index for each in answer.data] == list(range(len(answer.data)))
    return [each.embedding for each in answer.data]


def _near(ours: list[float], theirs: list[float]) -> bool:
    """Compares by the cosine, because the last digits depend on the other texts of the batch."""
    return sum(a * b for a, b in zip(ours, theirs, strict=True)) > 0.999


def test_both_encodings_are_one_vector_of_length_1(client: OpenAI) -> None:
    [packed] = _embed(client, TEXTS[0])  # the client asks for base64
    [plain] = _embed(client, TEXTS[0], encoding_format="float")
    assert _near(packed, plain)
    assert math.isclose(math.hypot(*plain), 1.0, rel_tol=1e-3)


def test_many_are_each_as_if_alone(client: OpenAI) -> None:
    texts = [f"{text} {n}" for n in range(20) for text in TEXTS]
    together = _embed(client, texts)
    for n in (0, 7, 59):
        assert _near(together[n], _embed(client, texts[n])[0])
    assert not _near(together[0], together[1])


def test_token_ids(client: OpenAI) -> None:
    usage = client.embeddings.create(model="demo", input=[[5, 6, 7], [8]]).usage
    assert (usage.prompt_tokens, usage.total_tokens) == (4, 4)
    assert len(_embed(client, [5, 6, 7])) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "1 to 2048"),
        ("", "empty"),
        (["a", ""], "empty"),
        ([1, "a"], "Invalid 'input'"),
        ([10**6], "does not have"),
        ("word " * 9000, "tokens"),
    ],
)
def test_what_cannot_be_embedded(client: OpenAI, given: Any, said: str) -> None:
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.embeddings.create(model="demo", input=given)
    assert caught.value.param == "input"


def test_dimensions_are_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model="demo", input="a", dimensions=4)
    assert caught.value.param == "dimensions"


def test_it_answers_no_chat(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/v1/embeddings"):
        client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "a"}])
    done = run("--", "--embeddings", stdin="hi")
    assert done.returncode != 0
    assert "loaded for embeddings" in done.stderr


def test_a_chat_model_gives_no_embeddings() -> None:
    with (
        serving() as running,
        OpenAI(base_url=running.api, api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="-- --embeddings"),
    ):
        client.embeddings.create(model="demo", input="a")


def _bert(path: Path) -> Path:
    """Writes a BERT with a real vocabulary and one layer of random weights."""
    metadata: dict[str, object] = dict(read_gguf(unpack_vocabulary("bert-bge", path)).metadata)
    del metadata["GGUF.tensor_count"]
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    metadata |= {
        "bert.block_count": 1,
        "bert.context_length": _CONTEXT,
        "bert.embedding_length": _WIDTH,
        "bert.feed_forward_length": _WIDTH,
        "bert.attention.head_count": 1,
        "bert.attention.layer_norm_epsilon": 1e-6,
        "bert.pooling_type": 1,
    }
    chance = random.Random(1)

    def tensor(name: str, *shape: int) -> Tensor:
        count = math.prod(shape)
        data = struct.pack(f"<{count}f", *(chance.uniform(-0.5, 0.5) for _ in range(count)))
        return name, shape, 0, data

    def both(name: str, *shape: int) -> list[Tensor]:
        return [tensor(f"{name}.weight", *shape), tensor(f"{name}.bias", _WIDTH)]

    tensors = [
        tensor("token_embd.weight", _WIDTH, len(tokens)),
        tensor("token_types.weight", _WIDTH, 2),
        tensor("position_embd.weight", _WIDTH, _CONTEXT),
        *both("token_embd_norm", _WIDTH),
    ]
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down"):
        tensors += both(f"blk.0.{name}", _WIDTH, _WIDTH)
    for name in ("attn_output_norm", "layer_output_norm"):
        tensors += both(f"blk.0.{name}", _WIDTH)
    return write_gguf(path / "bert.gguf", metadata, tensors)


def test_a_bert_s_embeddings_are_llama_cpp_s_own(tmp_path: Path) -> None:
    """The GGUF's metadata says that it is for embeddings. Our WordPiece tokenizes its texts."""
    import xllamacpp

    model = _bert(tmp_path)
    with (
        serving(model) as running,
        OpenAI(base_url=running.api, api_key="none", max_retries=0) as client,
    ):
        ours = _embed(client, TEXTS)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.embedding, params.warmup, params.verbosity = True, False, 0
    params.cpuparams.n_threads = 1
    peer = xllamacpp.Server(params)
    connection = HTTPConnection(urlsplit(peer.listening_address).netloc, timeout=20)
    try:
        for text, vector in zip(TEXTS, ours, strict=True):
            body = json.dumps({"content": text})
            connection.request("POST", "/embedding", body, {"Content-Type": "application/json"})
            [[theirs]] = [each["embedding"] for each in json.loads(connection.getresponse().read())]
            assert _near(vector, theirs), text
    finally:
        connection.close()
        del peer
