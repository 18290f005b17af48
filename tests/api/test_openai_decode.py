from contextlib import suppress

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dynemo.api.openai.decode import decode
from dynemo.api.openai.read import read_chat
from dynemo.api.openai.types import ChatRequest
from dynemo.errors import RequestError

MESSAGES = b'"messages":[{"role":"user","content":"hi"}]'


def refused(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, ChatRequest)
    assert caught.value.status == 400
    return caught.value


def test_the_plain_request() -> None:
    asked = decode(b'{"model":"demo","max_tokens":2049,%b}' % MESSAGES, ChatRequest)
    assert asked.model == "demo"
    assert asked.max_tokens == 2049
    assert asked.messages[0].content == "hi"


@pytest.mark.parametrize(
    ("field", "param"),
    [
        (b'"temperature":2.1', "temperature"),
        (b'"temperature":-0.1', "temperature"),
        (b'"temperature":"hot"', "temperature"),
        (b'"temperature":true', "temperature"),
        (b'"temperature":1e999', "temperature"),
        (b'"top_p":0', "top_p"),
        (b'"top_p":1.1', "top_p"),
        (b'"top_k":-2', "top_k"),
        (b'"top_k":1.5', "top_k"),
        (b'"min_p":1.5', "min_p"),
        (b'"presence_penalty":2.5', "presence_penalty"),
        (b'"frequency_penalty":-2.5', "frequency_penalty"),
        (b'"repetition_penalty":0', "repetition_penalty"),
        (b'"repetition_penalty":1e-300', "repetition_penalty"),
        (b'"max_tokens":0', "max_tokens"),
        (b'"max_completion_tokens":1.5', "max_completion_tokens"),
        (b'"n":0', "n"),
        (b'"n":129', "n"),
        (b'"seed":9223372036854775808', "seed"),
        (b'"seed":1.5', "seed"),
        (b'"stop":""', "stop"),
        (b'"stop":["a",""]', "stop[1]"),
        (b'"stop":[%b]' % b",".join([b'"a"'] * 17), "stop"),
        (b'"logit_bias":{"x":1}', "logit_bias"),
        (b'"logit_bias":{"-1":1}', "logit_bias"),
        (b'"logit_bias":{"1":101}', "logit_bias[...]"),
        (b'"logit_bias":[]', "logit_bias"),
        (b'"stream":"yes"', "stream"),
        (b'"stream_options":{"include_usage":1}', "stream_options.include_usage"),
        (b'"chat_template_kwargs":[]', "chat_template_kwargs"),
        (b'"metadata":{"a":1}', "metadata[...]"),
        (b'"model":5', "model"),
    ],
)
def test_a_wrong_value_names_its_field(field: bytes, param: str) -> None:
    error = refused(b"{%b,%b}" % (MESSAGES, field))
    assert error.param == param
    assert error.detail == "invalid_value"
    assert param in str(error)


@pytest.mark.parametrize(
    ("messages", "param", "code"),
    [
        (b"[]", "messages", "invalid_value"),
        (b'"hi"', "messages", "invalid_value"),
        (b"[1]", "messages[0]", "invalid_value"),
        (b'[{"content":"x"}]', "messages[0].role", "missing_required_parameter"),
        (b'[{"role":"pope","content":"x"}]', "messages[0].role", "invalid_value"),
        (b'[{"role":"user","content":5}]', "messages[0].content", "invalid_value"),
        (b'[{"role":"user","content":[5]}]', "messages[0].content[0]", "invalid_value"),
        (b'[{"role":"user","content":"x","weight":1}]', "messages[0].weight", "unknown_parameter"),
        (
            b'[{"role":"user","content":[{"type":"text","text":"a","cache":1}]}]',
            "messages[0].content[0].cache",
            "unknown_parameter",
        ),
        (
            b'[{"role":"assistant","tool_calls":[{"function":{}}]}]',
            "messages[0].tool_calls[0].function.name",
            "missing_required_parameter",
        ),
    ],
)
def test_a_wrong_message_names_its_place(messages: bytes, param: str, code: str) -> None:
    error = refused(b'{"messages":%b}' % messages)
    assert (error.param, error.detail) == (param, code)


def test_unknown_and_missing_fields_in_openai_s_words() -> None:
    error = refused(b'{%b,"foo":1}' % MESSAGES)
    assert str(error) == "Unrecognized request argument supplied: foo"
    assert error.param == "foo"
    error = refused(b'{"model":"demo"}')
    assert str(error) == "Missing required parameter: 'messages'."
    assert error.param == "messages"


def test_the_values_quoted_in_an_error_are_bounded() -> None:
    error = refused(b'{%b,"%b":1}' % (MESSAGES, b"a" * 100_000))
    assert len(str(error)) < 400
    error = refused(b'{"messages":[{"role":"%b"}]}' % (b"r" * 100_000))
    assert len(str(error)) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{%b} x" % MESSAGES,
        b'{"messages":\xff}',
        b'{"messages":[{"role":"user","content":"\xff"}]}',
        b'{"messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
        b'{"messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"messages":[{"role":"user","content":"\\udc00 and more"}]}',
        b'{"temperature":NaN,%b}' % MESSAGES,
        b'{"temperature":Infinity,%b}' % MESSAGES,
        b'{%b,"chat_template_kwargs":{"a":%b' % (MESSAGES, b"[" * 200_000),
        b'{%b,"tools":[%b' % (MESSAGES, b'{"a":' * 200_000),
        b"\xef\xbb\xbf{%b}" % MESSAGES,
    ],
)
def test_an_invalid_request_is_refused(body: bytes) -> None:
    error = refused(body)
    assert error.param is None
    assert len(str(error)) < 400


def test_broken_json_says_where() -> None:
    assert "byte 12" in str(refused(b'{"messages":?'))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["messages", "temperature", "stop", "logit_bias", "seed", "n", "tools", "stream_options", "x"]
)


@given(st.dictionaries(FIELDS, JSON))
@example({"messages": [{"role": "user", "content": "a` - at `$.b"}], "a` - at `$.b": 1})
def test_any_json_is_taken_or_refused(request_body: dict[str, object]) -> None:
    with suppress(RequestError):
        read_chat(decode(msgspec.json.encode(request_body), ChatRequest), None)


@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(noise: bytes) -> None:
    with suppress(RequestError):
        decode(b'{"messages":[{"role":"user","content":"' + noise + b'"}]}', ChatRequest)
