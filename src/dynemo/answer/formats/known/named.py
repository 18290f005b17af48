"""Tool calls as a name and the JSON of the arguments."""

from dynemo.answer.formats.format import ToolFormat
from dynemo.answer.formats.known.row import ToolRow

NAMED = (
    ToolRow(
        ToolFormat(
            "kimi",
            "named",
            sections=("<|tool_calls_section_begin|>",),
            opens=("<|tool_call_begin|>",),
            closes=("<|tool_call_end|>", "<|tool_calls_section_end|>"),
            separators=("<|tool_call_argument_begin|>",),
            prefixes=("functions.",),
            has_index=True,
            joint="",
        ),
        ("<|tool_calls_section_begin|>",),
        "Kimi K2",
    ),
    ToolRow(
        ToolFormat(
            "deepseek",
            "named",
            sections=("<｜tool▁calls▁begin｜>",),
            opens=("<｜tool▁call▁begin｜>",),
            closes=("<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>", "```"),
            separators=("<｜tool▁sep｜>",),
            fence="```json",
            joint="",
        ),
        ("<｜tool▁call▁begin｜>",),
        "DeepSeek V3, R1, V3.1",
    ),
    ToolRow(
        ToolFormat(
            "solar",
            "named",
            sections=("<|tool_calls|>",),
            opens=("<|tool_call:begin|>",),
            closes=("<|tool_call:end|>", "<|calls|>"),
            separators=("<|tool_call:args|>",),
            id_mark="<|tool_call:name|>",
            is_id_first=True,
            joint="",
        ),
        ("<|tool_call:begin|>",),
        "Solar Open",
    ),
    ToolRow(
        ToolFormat(
            "mistral",
            "named",
            opens=("[TOOL_CALLS]",),
            separators=("[ARGS]",),
            id_mark="[CALL_ID]",
            joint="",
        ),
        ("[TOOL_CALLS]",),
        "Mistral, Ministral, Devstral, Magistral",
    ),
    ToolRow(
        ToolFormat(
            "functionary_v32",
            "named",
            opens=(">>>",),
            separators=("\n",),
            is_open=True,
            content_name="all",
            joint=">>>",
        ),
        (">>>all", ">>>"),
        "Functionary 3.2",
    ),
    ToolRow(
        ToolFormat(
            "function_tag",
            "named",
            opens=("<function=",),
            closes=("</function>",),
            separators=(">",),
        ),
        ("<function=", "</function>"),
        "Functionary 3.1, Llama 3.1 with custom tools",
        "documentation",
    ),
)
