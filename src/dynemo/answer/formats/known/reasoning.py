"""Formats of reasoning.

The first row whose marks all stand in a template is its format, so more specific rows stand before
the others. A row without marks is never chosen from a template.
"""

from dynemo.answer.formats.format import ReasoningFormat
from dynemo.answer.formats.known.row import ReasoningRow


def _think(name: str, open: str, close: str) -> ReasoningFormat:
    return ReasoningFormat(name, (open,), (close,))


REASONING = (
    ReasoningRow(
        ReasoningFormat("harmony", (), (), is_channels=True),
        ("<|channel|>analysis", "<|start|>assistant<|channel|>"),
        "gpt-oss",
    ),
    ReasoningRow(
        ReasoningFormat(
            "kimi_k3",
            ("<|open|>think<|sep|>",),
            ("<|close|>think<|sep|>",),
            wrappers=(
                "<|open|>response<|sep|>",
                "<|close|>response<|sep|>",
                "<|close|>message<|sep|>",
            ),
        ),
        ("<|open|>think<|sep|>",),
        "Kimi K3",
    ),
    ReasoningRow(
        ReasoningFormat(
            "cohere",
            ("<|START_THINKING|>",),
            ("<|END_THINKING|>",),
            wrappers=(
                "<|START_RESPONSE|>",
                "<|END_RESPONSE|>",
                "<|START_TEXT|>",
                "<|END_TEXT|>",
            ),
        ),
        ("<|START_THINKING|>",),
        "Command R7B, Command A",
    ),
    ReasoningRow(
        ReasoningFormat("mistral", ("[THINK]", "<think>"), ("[/THINK]", "</think>")),
        ("[THINK]",),
        "Magistral, Ministral 3",
    ),
    ReasoningRow(
        ReasoningFormat("gemma", ("<|channel>thought\n", "<|channel>thought"), ("<channel|>",)),
        ("<|channel>thought",),
        "Gemma 4",
    ),
    ReasoningRow(
        _think("apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
        ("<|inner_prefix|>",),
        "Apertus",
    ),
    ReasoningRow(_think("seed", "<seed:think>", "</seed:think>"), ("<seed:think>",), "Seed-OSS"),
    ReasoningRow(
        ReasoningFormat(
            "apriel",
            ("Here are my reasoning steps:",),
            ("[BEGIN FINAL RESPONSE]",),
            wrappers=("[END FINAL RESPONSE]", "<|end|>"),
        ),
        ("[BEGIN FINAL RESPONSE]",),
        "Apriel",
    ),
    ReasoningRow(
        ReasoningFormat(
            "solar",
            ("<|think|>",),
            ("<|end|><|begin|>assistant", "<|end|>"),
            ends_at_calls=True,
            wrappers=("<|content|>", "<|begin|>assistant", "<|flush|>"),
        ),
        ("<|tool_call:begin|>", "<|think|>"),
        "Solar Open",
    ),
    ReasoningRow(
        ReasoningFormat("kimi", ("<think>",), ("</think>",), ends_at_calls=True),
        ("<|tool_calls_section_begin|>",),
        "Kimi K2",
    ),
    ReasoningRow(
        _think("minimax", "<think>", "</think>"), ("<minimax:tool_call>", "<think>"), "MiniMax M2"
    ),
    ReasoningRow(
        ReasoningFormat(
            "response", ("<think>",), ("</think>",), wrappers=("<response>", "</response>")
        ),
        ("<response>", "</response>", "<think>"),
        "Granite 3.3, ERNIE 4.5 thinking",
    ),
    ReasoningRow(
        ReasoningFormat("hunyuan", ("<think>",), ("</think>",), wrappers=("<answer>", "</answer>")),
        ("<answer>", "</think>"),
        "Hunyuan",
    ),
    ReasoningRow(
        ReasoningFormat("think", ("<think>",), ("</think>",)),
        ("<think>", "</think>"),
        "DeepSeek, Qwen 3, GLM, MiniMax, Nemotron, SmolLM3, Bielik, MiMo and most others",
    ),
    ReasoningRow(
        ReasoningFormat("deepseek_r1", ("<think>",), ("</think>",), is_open=True),
        (),
        "models that close the block and never open it",
    ),
)
