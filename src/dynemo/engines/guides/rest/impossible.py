"""Finds schemas that no value fits. llguidance leaves out optional parts with such a schema."""

from typing import Any

from dynemo.engines.guides.references import resolve


def is_impossible(root: Any, schema: Any, above: frozenset[int] = frozenset()) -> bool:
    """Whether no value fits a schema, as far as its parts say so.

    `above` are the schemas around it, by identity. A schema that holds itself counts as possible.
    """
    if not isinstance(schema, dict) or id(schema) in above:
        return schema is False
    above |= {id(schema)}

    def fails(part: Any) -> bool:
        return is_impossible(root, part, above)

    if schema.get("enum") == [] or any(map(fails, schema.get("allOf", []))):
        return True
    for name in ("anyOf", "oneOf"):
        if name in schema and all(map(fails, schema[name])):
            return True
    if "$ref" in schema:
        try:
            return fails(resolve(root, schema["$ref"]))
        except (LookupError, TypeError):
            return False
    return any(map(fails, _needed(schema)))


def _needed(schema: dict[str, Any]) -> list[Any]:
    """The schemas of the members and items that a value must have."""
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", True)
        return [properties.get(name, others) for name in schema.get("required", [])]
    if schema.get("type") == "array":
        items = [*schema.get("prefixItems", []), schema.get("items", True)]
        return items[: schema.get("minItems", 0)]
    return []
