"""The answer of a process that judges guides."""

from msgspec import Struct

from dynemo.errors import GuideNotContinued, RequestError, UnsupportedField
from dynemo.limits import SHOWN_CHARACTERS
from dynemo.messages.request import GUIDE_NAMES
from dynemo.spelling import shortened

GUIDE_FIELD = "guide"
#: In both directions a message starts with the length of its body.
HEADER_BYTES = 4


class GuideRefused(Exception):
    """The reason why a guide cannot be followed, as a clause without a full stop."""


class GuideUnsupported(Exception):
    """Why this build of the engine follows no such guide, as a sentence."""


class Verdict(Struct, frozen=True, array_like=True):
    """The judgement on one guide. It passed if all reasons are empty."""

    text: str = ""  #: the guide as the engine takes it, if it passed
    refused: str = ""  #: the clause of a GuideRefused
    unsupported: str = ""  #: the sentence of a GuideUnsupported
    is_last: bool = False  #: the process has grown and shall be replaced
    stuck: str = ""  #: the clause of a CannotContinue
    seconds: float = 0.0  #: of CPU time that the engine needs to compile it, once for each choice

    def passed(self, kind: str) -> str:
        """Returns the text for the engine.

        Raises RequestError if the guide was refused, and GuideNotContinued.
        """
        if self.stuck:
            raise GuideNotContinued(
                "The instance of this answer was lost, and another one cannot continue it, because "
                f"the {GUIDE_NAMES[kind]} cannot be advanced past what was written: "
                f"{shortened(self.stuck, SHOWN_CHARACTERS)}. Send the request again."
            )
        if self.unsupported:
            raise UnsupportedField(self.unsupported, param=GUIDE_FIELD)
        if self.refused:
            raise refused(self.refused, kind)
        return self.text


def refused(reason: str, kind: str = "json_schema") -> RequestError:
    """`reason` is a clause without a full stop."""
    if len(reason) > SHOWN_CHARACTERS:
        reason = reason[:SHOWN_CHARACTERS] + "..."
    return RequestError(
        f"The {GUIDE_NAMES[kind]} cannot be followed: {reason.rstrip('.')}.", param=GUIDE_FIELD
    )
