"""What can go wrong at the Hub, as one sentence each: the one place that knows its exceptions.

huggingface_hub raises its own tree (`huggingface_hub.errors`), its HTTP client's (httpx in version
1, httpx2 in version 2), `OSError` with and without a number, and whatever hf_xet raises.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dynemo.errors import DynemoError, ModelError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class HubUnreachable(ModelError):
    """The Hub did not answer, or not usefully; a copy in the cache would do."""


@contextmanager
def translated(repo: str, cache: str) -> Iterator[None]:
    """Raises `ModelError` in place of whatever huggingface_hub raises about `repo`."""
    try:
        yield
    except DynemoError:
        raise
    # Its exceptions have no common root, and hf_xet's are not documented: no list is complete.
    except Exception as error:
        raise _translate(error, repo, cache) from error


def _translate(error: Exception, repo: str, cache: str) -> ModelError:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not in the cache either": why it had to look there says more
    if isinstance(error, errors.HfHubHTTPError):
        return _translate_answer(error, repo)
    if isinstance(error, errors.HFValidationError):
        return ModelError(f"{repo} is not a Hub name: one looks like org/repo")
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return HubUnreachable(
            f"{repo} is not in the Hub's cache ({cache}) and HF_HUB_OFFLINE is set: unset it"
        )
    # The HTTP client's root, by whichever name this version knows it.
    if isinstance(error, errors.HfHubHTTPError.__bases__[0] | ConnectionError | TimeoutError):
        return HubUnreachable(
            f"no connection to the Hub for {repo} ({_reason(error)}): "
            "check the network, and HF_ENDPOINT if it is set"
        )
    if isinstance(error, OSError) and not isinstance(error, errors.FileMetadataError):
        return _translate_os(error, repo, cache)
    return HubUnreachable(
        f"the Hub's answer about {repo} makes no sense ({_reason(error)}): check HF_ENDPOINT"
    )


def _translate_answer(error: "HfHubHTTPError", repo: str) -> ModelError:
    from huggingface_hub import errors, get_token

    status = error.response.status_code
    url = error.response.request.url
    page = f"{url.scheme}://{url.netloc.decode()}/{repo}"
    has_token = get_token() is not None
    if isinstance(error, errors.GatedRepoError):
        if has_token:
            return ModelError(f"{repo} is gated and this token may not read it: ask at {page}")
        return ModelError(f"{repo} is gated: accept its terms at {page}, then set HF_TOKEN")
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "or ask for access" if has_token else "or, if it is private, set HF_TOKEN"
        return ModelError(
            f"there is no file or folder {repo} here and no such repository on the Hub: "
            f"check the name, {hint}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{repo} has no such revision: check what follows the @")
    if isinstance(error, errors.EntryNotFoundError):
        return ModelError(f"a file of {repo} is gone from the Hub: run the command again")
    if isinstance(error, errors.DisabledRepoError):
        return ModelError(f"{repo} was disabled on the Hub: choose another model")
    if status in (401, 403):
        return ModelError(f"the Hub refused the token for {repo} ({status}): check HF_TOKEN")
    if status == 429:
        hint = "wait a little" if has_token else "wait a little, or set HF_TOKEN for a higher limit"
        return HubUnreachable(f"the Hub has had too many requests from here (429): {hint}")
    if status >= 500:
        return HubUnreachable(f"the Hub failed on {repo} ({status}): try again later")
    return HubUnreachable(f"the Hub answered {status} for {repo}: check the name, and HF_ENDPOINT")


def _translate_os(error: OSError, repo: str, cache: str) -> ModelError:
    if error.errno in _NO_SPACE:
        return ModelError(
            f"no space left in {cache} for {repo}: make room, or set HF_HOME to another disk; "
            "then run the command again"
        )
    if error.errno is not None:
        return ModelError(
            f"cannot keep {repo} in the Hub's cache {error.filename or cache} ({error.strerror}): "
            "set HF_HOME to a folder of your own"
        )
    # Without a number it is the library's own: a file came with another size than was announced.
    return ModelError(
        f"{repo} did not come whole ({_reason(error)}): run the command again to go on"
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
