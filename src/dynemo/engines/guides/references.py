"""References within a JSON schema."""

from typing import Any

_ALL, _ONE = ("allOf",), ("anyOf", "oneOf")


def resolve(root: Any, reference: Any) -> Any:
    """Returns the part of a decoded schema that a `$ref` names.

    Raises LookupError for a reference to another document, by another name, or to nothing.
    """
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise LookupError(reference)
    part = root
    for name in reference[1:].split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        part = part[int(key)] if isinstance(part, list) and key.isdigit() else part[key]
        if not isinstance(part, dict | list | bool):
            raise LookupError(reference)
    return part


def is_endless(root: Any, schema: Any, above: frozenset[int] = frozenset()) -> bool:
    """Whether a schema refers back to itself, so that it describes no value.

    A reference from within a value to the value's own schema is not endless. `above` are the
    schemas, by identity, that describe the same value.
    """
    if not isinstance(schema, dict):
        return False
    if id(schema) in above:
        return True
    above |= {id(schema)}
    for name in _ALL:
        if any(is_endless(root, part, above) for part in _parts(schema, name)):
            return True
    for name in _ONE:
        parts = _parts(schema, name)
        if parts and all(is_endless(root, part, above) for part in parts):
            return True
    try:
        return "$ref" in schema and is_endless(root, resolve(root, schema["$ref"]), above)
    except (LookupError, TypeError):
        return False


def _parts(schema: dict[str, Any], name: str) -> list[Any]:
    parts = schema.get(name)
    return parts if isinstance(parts, list) else []
