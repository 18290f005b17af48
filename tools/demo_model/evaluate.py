"""Runs all cases on GGUF files with llama.cpp, and prints a table of correct answers."""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp
from cases import Case, all_cases

CONTEXT = 4096
SLOTS = 4
LONGEST_ANSWER = 450


@dataclass(frozen=True)
class Result:
    right: int
    asked: int
    wrong: list[tuple[Case, str]]


class Engine:
    """llama.cpp's own server on a loopback port."""

    def __init__(self, model: Path) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.n_parallel = SLOTS
        params.n_ctx = CONTEXT * SLOTS
        params.cpuparams.n_threads = 1  # such a small model gains nothing from more threads
        params.verbosity = 1
        self.server = xllamacpp.Server(params)
        self.address = self.server.listening_address

    def post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self.address + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)

    def answer(self, case: Case) -> str:
        ids = self.post(
            "/tokenize", {"content": case.prompt, "add_special": False, "parse_special": True}
        )["tokens"]
        body: dict[str, Any] = {
            "prompt": ids,
            "n_predict": LONGEST_ANSWER,
            "temperature": case.temperature,
            "seed": 1,
        }
        if case.schema:
            body["json_schema"] = case.schema
        return str(self.post("/completion", body)["content"])


def measure(engine: Engine, cases: list[Case]) -> Result:
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = list(pool.map(engine.answer, cases))
    wrong = [
        (case, answer)
        for case, answer in zip(cases, answers, strict=True)
        if not is_right(case, answer)
    ]
    return Result(len(cases) - len(wrong), len(cases), wrong)


def is_right(case: Case, answer: str) -> bool:
    if case.schema:
        try:
            return bool(json.loads(answer) == json.loads(case.expected))
        except ValueError:
            return False
    return answer == case.expected


def table(columns: dict[str, dict[str, Result]]) -> str:
    names = list(columns)
    lines = ["| Task | Asked | " + " | ".join(names) + " |", "|---|---:|" + "---:|" * len(names)]
    for task, first in columns[names[0]].items():
        right = " | ".join(f"{columns[name][task].right}" for name in names)
        lines.append(f"| {task} | {first.asked} | {right} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="+", help="NAME=FILE.gguf; each becomes a column of the table"
    )
    parser.add_argument("--only", default="", help="run only tasks whose name contains this text")
    parser.add_argument("--show", type=int, default=3, help="wrong answers to show for each task")
    parser.add_argument("--out", type=Path, help="write the table to this file")
    arguments = parser.parse_args()
    cases = {task: some for task, some in all_cases().items() if arguments.only in task}
    columns: dict[str, dict[str, Result]] = {}
    for entry in arguments.models:
        name, _, path = entry.partition("=")
        engine, started = Engine(Path(path)), time.monotonic()
        columns[name] = {}
        for task, some in cases.items():
            result = columns[name][task] = measure(engine, some)
            print(f"{name}: {task}: {result.right} of {result.asked}", flush=True)
            for case, answer in result.wrong[: arguments.show]:
                print(f"    {case.prompt[-160:]!r}")
                print(f"      said {answer!r}\n      not  {case.expected!r}")
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print(table(columns))
    if arguments.out:
        arguments.out.write_text(table(columns) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
