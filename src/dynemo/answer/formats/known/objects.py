"""Tool calls as JSON objects, alone or in a list."""

from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.known.row import ToolRow

OBJECTS = (
    ToolRow(
        ToolFormat(
            "cohere",
            "json",
            is_list=True,
            opens=("<|START_ACTION|>",),
            closes=("<|END_ACTION|>",),
            name_keys=("tool_name", "name"),
            argument_keys=("parameters", "arguments"),
            id_keys=(),
        ),
        ("<|START_ACTION|>",),
        "Command R7B, Command A",
    ),
    ToolRow(
        ToolFormat(
            "command_r",
            "json",
            is_list=True,
            opens=("Action: ```json", "Action:```json"),
            closes=("```",),
            name_keys=("tool_name", "name"),
            argument_keys=("parameters", "arguments"),
            id_keys=(),
        ),
        ("Action:", "tool_name", "```json"),
        "Command R, Command R+",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "apertus",
            "json",
            opens=("<|tools_prefix|>",),
            closes=("<|tools_suffix|>",),
            is_name_key=True,
        ),
        ("<|tools_prefix|>",),
        "Apertus",
    ),
    ToolRow(
        ToolFormat(
            "phi4",
            "json",
            is_list=True,
            opens=("<|tool_call|>", "functools"),
            closes=("<|/tool_call|>",),
        ),
        ("<|/tool_call|>",),
        "Phi-4-mini",
        "documentation",
    ),
    ToolRow(
        ToolFormat("functools", "json", is_list=True, opens=("functools",)),
        ("functools[",),
        "Firefunction v2",
    ),
    ToolRow(
        ToolFormat(
            "internlm",
            "json",
            opens=("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
            closes=("<|action_end|>",),
        ),
        ("<|action_start|>",),
        "InternLM 2.5, InternLM 3",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "gigachat",
            "json",
            opens=("<|function_call|>", "function call<|role_sep|>"),
        ),
        ("function call<|role_sep|>",),
        "GigaChat 3",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "nemotron", "json", is_list=True, opens=("<TOOLCALL>",), closes=("</TOOLCALL>",)
        ),
        ("<TOOLCALL>",),
        "Nemotron Nano v2, Llama-Nemotron",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "tool_calls", "json", is_list=True, opens=("<tool_calls>",), closes=("</tool_calls>",)
        ),
        ("<tool_calls>",),
        "Apriel, Hunyuan, Jamba, MiniMax M1",
    ),
    ToolRow(
        ToolFormat(
            "granite",
            "json",
            has_lines=True,
            opens=("<|tool_call|>", "<tool_call>"),
            closes=("</tool_call>",),
        ),
        ("<|start_of_role|>",),
        "Granite 3 and 4",
    ),
    ToolRow(
        ToolFormat(
            "hermes",
            "json",
            has_lines=True,
            opens=("<tool_call>",),
            closes=("</tool_call>",),
        ),
        ("<tool_call>",),
        "Hermes, Qwen 2.5, Qwen 3, MiMo, Reka, SmolLM3, Bielik, ERNIE 4.5",
    ),
    ToolRow(
        ToolFormat(
            "llama3",
            "json",
            opens=("<|python_tag|>",),
            bare="{",
            argument_keys=("parameters", "arguments"),
        ),
        ('"parameters"', "<|start_header_id|>"),
        "Llama 3.1, 3.2, 3.3",
    ),
    ToolRow(
        ToolFormat("xlam", "json", is_list=True, opens=("```json",), closes=("```",), bare="["),
        ("xlam",),
        "xLAM",
        "documentation",
    ),
)
