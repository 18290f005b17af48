"""Tool calls as tags around names and values."""

from dynemo.answer.formats.format import Tag, ToolFormat
from dynemo.answer.formats.known.row import ToolRow

TAGS = (
    ToolRow(
        ToolFormat(
            "kimi_k3",
            "xml",
            joint="",
            sections=("<|open|>tools<|sep|>",),
            closes=("<|close|>tools<|sep|>",),
            call_tag=Tag(
                '<|open|>call tool="', '"', "<|sep|>", "<|close|>call<|sep|>", ' index="1"'
            ),
            value_tag=Tag(
                '<|open|>argument key="',
                '"',
                "<|sep|>",
                "<|close|>argument<|sep|>",
                ' type="{type}"',
            ),
        ),
        ("<|open|>call tool=",),
        "Kimi K3",
        "documentation",
    ),
    *(
        ToolRow(
            ToolFormat(
                name,
                "xml",
                sections=(f"<｜DSML｜{section}>",),
                closes=(f"</｜DSML｜{section}>",),
                call_tag=Tag(f'<｜DSML｜{gap}invoke name="', '"', ">", f"</｜DSML｜{gap}invoke>"),
                value_tag=Tag(
                    f'<｜DSML｜{gap}parameter name="',
                    '"',
                    ">",
                    f"</｜DSML｜{gap}parameter>",
                    ' string="{is_text}"',
                ),
            ),
            (f"｜DSML｜{section}",),
            family,
            "documentation",
        )
        for name, section, gap, family in (
            ("deepseek_v32", "function_calls", "", "DeepSeek V3.2"),
            ("deepseek_v4", "tool_calls", "", "DeepSeek V4"),
            ("deepseek_v41", " calls", " ", "DeepSeek V4.1"),
        )
    ),
    ToolRow(
        ToolFormat(
            "step3",
            "xml",
            joint="",
            sections=("<｜tool_calls_begin｜>",),
            opens=("<｜tool_call_begin｜>function<｜tool_sep｜>",),
            closes=("<｜tool_call_end｜>", "<｜tool_calls_end｜>"),
            call_tag=Tag('<steptml:invoke name="', '"', ">", "</steptml:invoke>"),
            value_tag=Tag('<steptml:parameter name="', '"', ">", "</steptml:parameter>"),
        ),
        ("steptml:invoke",),
        "Step 3",
        "documentation",
    ),
    ToolRow(
        ToolFormat(
            "minimax",
            "xml",
            sections=("<minimax:tool_call>",),
            closes=("</minimax:tool_call>",),
            call_tag=Tag('<invoke name="', '"', ">", "</invoke>"),
            value_tag=Tag('<parameter name="', '"', ">", "</parameter>"),
        ),
        ("<minimax:tool_call>",),
        "MiniMax M2",
    ),
    ToolRow(
        ToolFormat(
            "seed",
            "xml",
            wraps_each=True,
            sections=("<seed:tool_call>",),
            closes=("</seed:tool_call>",),
            call_tag=Tag("<function=", ">", "", "</function>"),
            value_tag=Tag("<parameter=", ">", "", "</parameter>"),
        ),
        ("<seed:tool_call>",),
        "Seed-OSS",
    ),
    ToolRow(
        ToolFormat(
            "qwen_xml",
            "xml",
            wraps_each=True,
            sections=("<tool_call>",),
            closes=("</tool_call>",),
            call_tag=Tag("<function=", ">", "", "</function>"),
            value_tag=Tag("<parameter=", ">", "", "</parameter>"),
            has_lines=True,
        ),
        ("<function=", "<parameter=", "<tool_call>"),
        "Qwen3-Coder, Qwen 3.5 and later, Nemotron 3, Step 3.5",
    ),
    ToolRow(
        ToolFormat(
            "glm",
            "pairs",
            opens=("<tool_call>",),
            closes=("</tool_call>",),
            key_tag=Tag(open="<arg_key>", close="</arg_key>"),
            value_tag=Tag(open="<arg_value>", close="</arg_value>"),
        ),
        ("<arg_key>", "<arg_value>"),
        "GLM 4.5 and later",
    ),
)
