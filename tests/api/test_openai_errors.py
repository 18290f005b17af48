"""Errors as OpenAI's error object."""

import json

from dynemo.api.openai.errors import describe
from dynemo.errors import RequestError
from dynemo.limits import ERROR_CHARACTERS, SHOWN_CHARACTERS


def test_no_error_repeats_a_client_at_length() -> None:
    error = json.loads(describe(RequestError("m" * 10**6, param="p" * 10**6)))["error"]
    assert len(error["message"]) == ERROR_CHARACTERS
    assert len(error["param"]) == SHOWN_CHARACTERS
