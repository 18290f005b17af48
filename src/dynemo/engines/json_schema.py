"""JSON schemas, checked before an engine that holds its answer to them is asked."""

from dynemo.errors import RequestError, UnsupportedField

GUIDE_FIELD = "response_format"
_WHERE = "failed to compile JSON schema: "


def check_schema(schema: str) -> None:
    """Raises RequestError, with the reason, for a schema that cannot be followed.

    llama.cpp follows schemas with llguidance and, where that refuses one, logs so and answers
    unbound: the same library is asked here first.
    """
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise UnsupportedField(
            "A JSON schema needs llguidance, which is not installed; run `pip install llguidance`.",
            param=GUIDE_FIELD,
        ) from None
    error = LLMatcher.validate_grammar(f"%llguidance {{}}\nstart: %json {schema}")
    if error:
        reason = error.split(_WHERE)[-1].splitlines()[0]
        raise RequestError(
            f"The schema in '{GUIDE_FIELD}' cannot be followed: {reason}.", param=GUIDE_FIELD
        )
