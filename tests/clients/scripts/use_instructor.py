"""instructor: its mode TOOLS (the default), and its modes for JSON."""

import instructor
import openai
from common import CAPITAL, DEMO, SCRIPTED, City, raised
from instructor.core import InstructorRetryException


def client(url: str, mode: instructor.Mode) -> instructor.Instructor:
    return instructor.from_openai(openai.OpenAI(base_url=url, api_key="none"), mode=mode)


def tools() -> None:
    made = client(SCRIPTED, instructor.Mode.TOOLS)
    messages = [{"role": "user", "content": "city as a tool"}]
    city, raw = made.chat.completions.create_with_completion(
        model="scripted", messages=messages, response_model=City, max_retries=0
    )
    assert (city.name, city.people) == ("Oslo", 700000), raw
    partial = list(
        made.chat.completions.create_partial(
            model="scripted",
            messages=[{"role": "user", "content": "partial city as a tool"}],
            response_model=City,
            max_retries=0,
        )
    )
    assert partial[-1].name == "Oslo", partial


def forms() -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        city = client(DEMO, mode).chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": CAPITAL}],
            response_model=City,
            max_retries=0,
        )
        assert isinstance(city, City), city


def errors() -> None:
    made = client(SCRIPTED, instructor.Mode.TOOLS)
    raised(
        InstructorRetryException,
        lambda: made.chat.completions.create(
            model="gpt-9",
            messages=[{"role": "user", "content": "Hi"}],
            response_model=City,
            max_retries=0,
        ),
    )


tools()
forms()
errors()
