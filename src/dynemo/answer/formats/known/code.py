"""Tool calls as code, as objects without quotes, and as channels."""

from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.known.row import ToolRow

CODE = (
    ToolRow(
        ToolFormat("harmony", "harmony", prefixes=("functions.",)),
        ("<|start|>assistant", "<|channel|>commentary", "<|message|>"),
        "gpt-oss",
    ),
    ToolRow(
        ToolFormat(
            "gemma",
            "braces",
            opens=("<|tool_call>call:",),
            closes=("<tool_call|>",),
            quote='<|"|>',
            joint="",
        ),
        ("<|tool_call>",),
        "Gemma 4",
    ),
    ToolRow(
        ToolFormat(
            "function_gemma",
            "braces",
            opens=("<start_function_call>call:",),
            closes=("<end_function_call>",),
            quote="<escape>",
            joint="",
        ),
        ("<start_function_call>",),
        "FunctionGemma",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "lfm2",
            "python",
            opens=("<|tool_call_start|>",),
            closes=("<|tool_call_end|>",),
        ),
        ("<|tool_list_start|>",),
        "LFM2",
    ),
    ToolRow(
        ToolFormat("olmo", "python", opens=("<function_calls>",), closes=("</function_calls>",)),
        ("<function_calls>",),
        "Olmo 3",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "llama4",
            "python",
            opens=("<|python_start|>",),
            closes=("<|python_end|>",),
            bare="[{",
        ),
        ("<|python_start|>",),
        "Llama 4",
        "documentation",
    ),
    ToolRow(
        ToolFormat("gemma3", "python", opens=("```tool_code",), closes=("```",), bare="["),
        ("```tool_code",),
        "Gemma 3",
        "documentation",
    ),
)
