"""The peer of a first prompt: a script on the same library.

`python bench/bare_script.py MODEL CONTEXT SLOTS THREADS < prompt` prints the first token and exits.
It is timed from the start of the shell.
"""

import sys

import xllamacpp


def main() -> None:
    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.n_parallel = int(sys.argv[3])
    params.n_ctx = int(sys.argv[2]) * params.n_parallel
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(sys.argv[4])
    params.warmup = False
    params.ui = False
    params.verbosity = 1
    server = xllamacpp.Server(params)
    messages = [{"role": "user", "content": sys.stdin.read().strip()}]

    def show(chunk: dict) -> bool:  # type: ignore[type-arg]
        text = chunk["choices"][0]["delta"].get("content")
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()
        return bool(text)

    server.handle_chat_completions({"messages": messages, "stream": True, "temperature": 0}, show)


if __name__ == "__main__":
    main()
