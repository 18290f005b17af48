"""Chats with functions to call: get_weather and similar ones."""

from __future__ import annotations

from random import Random
from typing import Any

from phrasings import OTHER_TOOLS, WHICH_CITY, phrases
from sentences import place
from tasks import Message, assistant, dumps, exchange, sloppy, user

Tool = dict[str, Any]


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def describe(
    rng: Random, name: str, about: str, parameter: str, parameter_about: str, unit: bool
) -> Tool:
    """Returns a function in the form of the OpenAI API, with or without its optional parts."""
    properties: dict[str, Any] = {parameter: {"type": "string"}}
    if rng.random() < 0.6:
        properties[parameter]["description"] = parameter_about
    if unit:
        properties["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    if rng.random() < 0.75:
        schema["required"] = [parameter]
    if rng.random() < 0.15:
        schema["additionalProperties"] = False
    function: dict[str, Any] = {"name": name}
    if rng.random() < 0.8:
        function["description"] = about
    function["parameters"] = schema
    tool = {"type": "function", "function": function}
    return sorted_keys(tool) if rng.random() < 0.15 else tool


def sorted_keys(value: Any) -> Any:
    """Sorts all keys, because some servers pass tools to the template with sorted keys."""
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    return value


def place_tool(rng: Random, endings: list[str], about: list[str], unit: bool) -> Tool:
    name = rng.choice(phrases("tool_prefix")) + rng.choice(endings)
    if rng.random() < 0.12:
        name = camel(name)
    return describe(
        rng,
        name,
        rng.choice(about),
        rng.choice(phrases("place_parameter")),
        rng.choice(phrases("place_about")),
        unit,
    )


def call(tool: Tool, where: str, unit: str | None = None) -> Message:
    function = tool["function"]
    parameter = next(key for key in function["parameters"]["properties"] if key != "unit")
    arguments = {parameter: where} | ({"unit": unit} if unit else {})
    return {
        "role": "assistant",
        "tool_calls": [{"function": {"name": function["name"], "arguments": dumps(arguments)}}],
    }


def report(rng: Random, where: str) -> tuple[str, str]:
    """Returns the result of a weather function, and the sentence made from it."""
    degrees, sky = rng.randint(-15, 40), rng.choice(phrases("sky"))
    letter = "F" if rng.random() < 0.15 else "C"
    has_sky, has_degrees = rng.choice(
        ((True, True), (True, True), (True, True), (False, True), (True, False))
    )
    said = " and ".join([f"{degrees} °{letter}"] * has_degrees + [sky] * has_sky)
    sentence = f"It is {said} in {where}."
    shown_sky = sky.capitalize() if rng.random() < 0.25 else sky
    if rng.random() < 0.3:
        warm = rng.choice(
            (
                f"{degrees} °{letter}",
                f"{degrees}°{letter}",
                f"{degrees} degrees {letter}",
                f"{degrees}{letter}",
            )
        )
        parts = [warm] * has_degrees + [shown_sky] * has_sky
        rng.shuffle(parts)
        return rng.choice((", ", " and ", "; ")).join(parts), sentence
    fields: dict[str, Any] = {}
    if has_degrees:
        fields |= degree_fields(rng, degrees, letter)
    if has_sky:
        key = rng.choice(
            ("condition", "conditions", "weather", "description", "sky", "summary", "forecast")
        )
        fields |= {key: shown_sky}
    if rng.random() < 0.3:
        fields = {rng.choice(("city", "location")): where} | fields
    if rng.random() < 0.2:
        fields |= {"humidity": rng.randint(10, 99)}
    return dumps(fields), sentence


def degree_fields(rng: Random, degrees: int, letter: str) -> dict[str, Any]:
    unit = {"C": rng.choice(("celsius", "C", "°C")), "F": rng.choice(("fahrenheit", "F", "°F"))}[
        letter
    ]
    if letter == "C" and rng.random() < 0.5:
        return {
            rng.choice(
                (
                    "temperature",
                    "temperature",
                    "temp",
                    "degrees",
                    "celsius",
                    "temperature_c",
                    "temp_c",
                )
            ): degrees
        }
    if rng.random() < 0.3:
        return {"temperature": f"{degrees} °{letter}"}
    return {rng.choice(("temperature", "temp")): degrees, "unit": unit}


def weather(rng: Random, tool: Tool) -> list[Message]:
    where = place(rng)
    question, unit = sloppy_place(rng, rng.choice(phrases("weather")), where), None
    if "unit" in tool["function"]["parameters"]["properties"] and rng.random() < 0.5:
        unit = rng.choice(("celsius", "fahrenheit"))
        question = question.rstrip("?.") + f" in {unit}" + ("?" if question.endswith("?") else ".")
    messages = [user(question), call(tool, where, unit)]
    if rng.random() < 0.85:
        result, sentence = report(rng, where)
        messages += [{"role": "tool", "content": result}, assistant(sentence)]
    return messages


def sloppy_place(rng: Random, form: str, where: str) -> str:
    """Returns a question with the place as written, which the model must copy."""
    return sloppy(rng, form).replace("{}", where)


def clock(rng: Random, tool: Tool) -> list[Message]:
    where = place(rng)
    messages = [user(sloppy_place(rng, rng.choice(phrases("time")), where)), call(tool, where)]
    if rng.random() < 0.85:
        time = f"{rng.randrange(24):02}:{rng.randrange(60):02}"
        result = (
            time if rng.random() < 0.4 else dumps({rng.choice(("time", "local_time", "now")): time})
        )
        messages += [{"role": "tool", "content": result}, assistant(f"It is {time} in {where}.")]
    return messages


def nowhere(rng: Random) -> list[Message]:
    return exchange(sloppy(rng, rng.choice(phrases("weather_nowhere"))), WHICH_CITY)


def toolbox(rng: Random) -> tuple[list[Tool], Tool | None, Tool | None]:
    """Returns tools to offer, and which of them report the weather and the time."""
    has_weather, has_clock = rng.choice(
        ((True, False),) * 6 + ((True, True),) * 2 + ((False, True),)
    )
    weather_tool = (
        place_tool(rng, phrases("weather_tool"), phrases("weather_about"), rng.random() < 0.3)
        if has_weather
        else None
    )
    clock_tool = (
        place_tool(rng, phrases("time_tool"), phrases("time_about"), False) if has_clock else None
    )
    offered = [tool for tool in (weather_tool, clock_tool) if tool]
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        name, about, parameter = rng.choice(OTHER_TOOLS)
        offered.append(describe(rng, name, about, parameter, "The value", unit=False))
    rng.shuffle(offered)
    return offered, weather_tool, clock_tool
