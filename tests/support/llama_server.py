"""llama.cpp's own server, in this process: it renders, tokenizes and answers by itself."""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xllamacpp

from dynemo.engines.llama_cpp.params import apply_options


class LlamaServer:
    """`options` are flags of llama.cpp."""

    def __init__(self, model: Path, options: Sequence[str] = ()) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_ctx = 4096
        params.n_parallel = 1
        params.verbosity = 0
        apply_options(params, list(options))
        self._server = xllamacpp.Server(params)

    def get(self, path: str) -> Any:
        return self._answer(path, None)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return self._answer(path, json.dumps(body).encode())

    def _answer(self, path: str, body: bytes | None) -> Any:
        url, headers = self._server.listening_address + path, {"Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=15) as answer:
            return json.load(answer)
