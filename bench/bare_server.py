"""The peer: the same xllamacpp server with the same parameters, on TCP, without dynemo-run.

`python -m bench.bare_server SPEC_JSON` prints its port and serves until its standard input closes.
"""

import sys
from urllib.parse import urlsplit

import xllamacpp
from msgspec import json

from dynemo.engines.llama_cpp.params import common_params
from dynemo.messages.spec import EngineSpec


def main() -> None:
    spec = json.decode(sys.argv[1], type=EngineSpec)
    params = common_params(spec, "127.0.0.1")
    params.port = 0
    server = xllamacpp.Server(params)
    print(urlsplit(server.listening_address).port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
