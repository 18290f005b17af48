"""The error of a guide that cannot be continued within an answer."""


class CannotContinue(Exception):
    """The reason, as a clause without a full stop."""
