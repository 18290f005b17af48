"""llama.cpp's own tokenizer as a reference, and texts on which tokenizers differ."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dynemo.models.gguf import read_gguf
from dynemo.tokenizers.gguf.tokenizer import load_tokenizer
from support.gguf_files import tiny_model

#: add_special, parse_special
MODES = ((True, True), (False, False))


@contextmanager
def serve(keys: Mapping[str, object], folder: Path) -> Iterator[HTTPConnection]:
    """Runs llama.cpp's server on a model with these tokenizer keys."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(tiny_model(folder / "model.gguf", keys))
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 64, 1, False, 0
    params.cpuparams.n_threads = 1
    server = xllamacpp.Server(params)
    connection = HTTPConnection(urlsplit(server.listening_address).netloc, timeout=20)
    try:
        yield connection
    finally:
        connection.close()
        del server


def ids_of(connection: HTTPConnection, text: str, adds: bool, parses: bool) -> list[int]:
    body = {"content": text, "add_special": adds, "parse_special": parses}
    connection.request("POST", "/tokenize", json.dumps(body), {"Content-Type": "application/json"})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    assert "tokens" in answer, f"llama.cpp on {text!r}: {answer}"
    ids: list[int] = answer["tokens"]
    return ids


def differences(keys: Mapping[str, object], folder: Path, texts: list[str]) -> list[str]:
    """Returns a line for each text for which llama.cpp's ids differ from ours."""
    found = []
    with serve(keys, folder) as connection:
        tokenizer = load_tokenizer(read_gguf(folder / "model.gguf").metadata)
        for text, (adds, parses) in product(texts, MODES):
            theirs = ids_of(connection, text, adds, parses)
            ours = tokenizer.encode(text, add_special=adds, parse_special=parses)
            if ours != theirs:
                found.append(f"{text!r} {adds=} {parses=}: llama.cpp {theirs}, ours {ours}")
    return found


def texts() -> list[str]:
    """Returns texts on which the pre-tokenizers differ."""
    chars = [
        *"aAbZsStTrReElLvVmMdD'’'  \t\n\r\v\f\x1c\x85\xa0\u3000\u200c\u200d0123456789",
        *".,!?-_/(){}[]$+",
        *'<=>~`|^"#\\中文字日本ごカ한글éÉßſḰ़ािไทย١٢½Ⅷ²😀€№‘“”…。，、।۔،：~～ǅʰªº\u2028\ue000\U0001d400',
        *("\U00020000", "\x00", "\x07", "<sentinel:12>", "IMGIMGABCZ", "<|user|>", " worldwide"),
    ]
    rng = random.Random(5)
    made = [
        "".join(rng.choice(chars) * rng.choice((1, 1, 1, 2, 3)) for _ in range(rng.randint(2, 14)))
        for _ in range(90)
    ]
    return [*_WRITTEN, *made]


_WRITTEN = [
    "",
    " ",
    "   ",
    "\n",
    "\n\n\n\n",
    " \n \n",
    "\t\tx",
    "a\r\n\r\nb",
    "Hello world",
    " Hello  World ",
    "I'm, you'll, WE'RE, don'T, it’s '",
    "camelCase HTTPServer ABCdef ÀÉÎ éÈ ǅabc",
    "1234567 12 3.14",
    "x1234567y ١٢٣٤٥ 12½Ⅷ²³ ౧౨౩",
    "price: $1,234.56!!!\n\n(+)=>`~|^",
    "/usr//bin/a_b-c.py\n//x/",
    "Straße Führer naïve cafe\u0301 a\u0308\u0301b",
    "नमस्ते दुनिया",
    "ไทยคำ",
    "日本語ごカタｶﾅ、中文。한국어ㄅㄆ",
    "👨\u200d👩\u200d👧 🏳️\u200d🌈 می\u200cخواهم",
    "\xa0nbsp\u3000wide\u2028line\x85next",
    "a b c \u0300 d\u0300 e",
    "<|user|>hi<|endoftext|> <|x|> <|x",
    "IMGIMGABCDEZ<sentinel:7>",
    "https://a.b/c?d=e&f=%20#g",
    "    if x == 1:\n        return {'a': [1, 2]}\n",
    "…“”‘’—：；，！〿︰",
    "\x00\x01\x7f\ufeff\ufffd\U000e0001",
    "worldwide worldwide文字123\n\n\n\n",
    "𝐀𝐁 𐐀𐑏 𠀀𠀁 豈更 \uf900",
    "' 's 'S 'ſ '' 'LL 'lL",
]
