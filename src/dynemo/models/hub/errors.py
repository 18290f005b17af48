"""Translates the exceptions of huggingface_hub into ModelErrors, each with one message.

huggingface_hub raises its own tree (`huggingface_hub.errors`) and the tree of its HTTP client:
httpx in version 1, httpx2 in version 2. It also raises `OSError` with and without a number, and
hf_xet's exceptions.
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
    """The Hub did not answer, or gave an unusable answer. A copy in the cache may be used."""


@contextmanager
def translated(repo: str, cache: str) -> Iterator[None]:
    """Raises ModelError in place of any exception of huggingface_hub about `repo`."""
    try:
        yield
    except DynemoError:
        raise
    # The exceptions have no common root, and hf_xet's are undocumented, so no list is complete.
    except Exception as error:
        raise _translate(error, repo, cache) from error


def _translate(error: Exception, repo: str, cache: str) -> ModelError:
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # "not in the cache either": the cause is more useful
    if isinstance(error, errors.HfHubHTTPError):
        return _translate_answer(error, repo)
    if isinstance(error, errors.HFValidationError):
        return ModelError(f'"{repo}" is not a Hub name. A Hub name looks like org/repo.')
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError):
        return HubUnreachable(
            f'"{repo}" is not in the Hub cache "{cache}", and HF_HUB_OFFLINE is set. Unset it to '
            "download the model."
        )
    # The root of the HTTP client's exceptions, whose name depends on the version.
    if isinstance(error, errors.HfHubHTTPError.__bases__[0] | ConnectionError | TimeoutError):
        return HubUnreachable(
            f'No connection to the Hub for "{repo}" ({_reason(error)}). Check the network, and '
            "HF_ENDPOINT if it is set."
        )
    if isinstance(error, OSError) and not isinstance(error, errors.FileMetadataError):
        return _translate_os(error, repo, cache)
    return HubUnreachable(
        f'The Hub sent an invalid answer about "{repo}" ({_reason(error)}). Check HF_ENDPOINT.'
    )


def _translate_answer(error: "HfHubHTTPError", repo: str) -> ModelError:
    from huggingface_hub import errors, get_token

    status = error.response.status_code
    url = error.response.request.url
    page = f"{url.scheme}://{url.netloc.decode()}/{repo}"
    has_token = get_token() is not None
    if isinstance(error, errors.GatedRepoError):
        if has_token:
            return ModelError(
                f'"{repo}" is gated, and this token may not read it. Ask for access at {page}.'
            )
        return ModelError(f'"{repo}" is gated. Accept its terms at {page}, then set HF_TOKEN.')
    if isinstance(error, errors.RepositoryNotFoundError):
        hint = "or ask for access" if has_token else "or, if it is private, set HF_TOKEN"
        return ModelError(
            f'No file or folder "{repo}" exists here, and no such repository on the Hub. Check '
            f"the name, {hint}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f'"{repo}" has no such revision. Check the part after the @.')
    if isinstance(error, errors.EntryNotFoundError):
        return ModelError(f'A file of "{repo}" is gone from the Hub. Run the command again.')
    if isinstance(error, errors.DisabledRepoError):
        return ModelError(f'"{repo}" was disabled on the Hub. Choose another model.')
    if status in (401, 403):
        return ModelError(f'The Hub refused the token for "{repo}" ({status}). Check HF_TOKEN.')
    if status == 429:
        hint = (
            "Wait a little." if has_token else "Wait a little, or set HF_TOKEN for a higher limit."
        )
        return HubUnreachable(f"The Hub has had too many requests from here (429). {hint}")
    if status >= 500:
        return HubUnreachable(f'The Hub failed on "{repo}" ({status}). Try again later.')
    return HubUnreachable(
        f'The Hub answered {status} for "{repo}". Check the name, and HF_ENDPOINT if it is set.'
    )


def _translate_os(error: OSError, repo: str, cache: str) -> ModelError:
    if error.errno in _NO_SPACE:
        return ModelError(
            f'No space is left in "{cache}" for "{repo}". Free some space, or set HF_HOME to '
            "another disk. Then run the command again."
        )
    if error.errno is not None:
        return ModelError(
            f'"{repo}" cannot be stored in the Hub cache "{error.filename or cache}": '
            f"{error.strerror}. Set HF_HOME to a folder that you own."
        )
    # An OSError without a number comes from the library: a file's size differs from the announced
    # one.
    return ModelError(
        f'"{repo}" arrived incomplete ({_reason(error)}). Run the command again to resume.'
    )


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
