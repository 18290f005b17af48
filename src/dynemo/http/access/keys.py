"""Finds the client whose key a request has.

A key is looked up by a keyed hash, whose own key is made at random when the process starts. No
client knows the hash of its guess, so the time of the look-up says nothing about the keys. It does
not grow with their number either. The hash that was found is compared in constant time.
"""

import logging
import secrets
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from hmac import compare_digest
from pathlib import Path
from time import monotonic

from dynemo.errors import UsageError
from dynemo.http.access.client import Client
from dynemo.http.access.key_file import (
    KEY_FORM,
    ApiKey,
    conflict,
    is_key,
    is_open_to_others,
    read_key_file,
)
from dynemo.http.access.share import KeyRules, Share
from dynemo.http.asgi import Scope, find_headers
from dynemo.http.file_change import signature
from dynemo.spelling import quoted

_log = logging.getLogger("dynemo.http")

_LOOK_SECONDS = 1.0  #: between two looks at the file


class Keys:
    """The keys of `--api-key` and of the file. The file is read again when it has changed; while it
    is broken, the keys from before remain."""

    def __init__(self, given: Sequence[str], file: Path | None) -> None:
        """Raises UsageError."""
        if not all(map(is_key, given)):
            raise UsageError(f"--api-key cannot be used: {KEY_FORM}.")
        self._given = [ApiKey(text, KeyRules(f"key-{n}")) for n, text in enumerate(given, 1)]
        self._file = file
        self._seal = secrets.token_bytes(32)
        self._clients: dict[bytes, tuple[bytes, Client]] = {}
        self._shares: dict[str, Share] = {}
        self._signature = None if file is None else signature(file)
        self._look_at = monotonic() + _LOOK_SECONDS
        self._use(self._read())
        if file is not None and is_open_to_others(file):
            _log.warning(
                "Other users of this machine may read the keys in %s; run `chmod 600` on it.",
                quoted(str(file)),
            )

    def find(self, scope: Scope) -> Client | None:
        """The client whose key the request has, as bearer token or as `x-api-key`."""
        self._look()
        for text in _candidates(scope):
            digest = self._digest(text)
            known, client = self._clients.get(digest, (b"", None))
            if compare_digest(known, digest):
                return client
        return None

    def _digest(self, text: str) -> bytes:
        return blake2b(text.encode(), key=self._seal).digest()

    def _read(self) -> list[ApiKey]:
        keys = self._given + ([] if self._file is None else read_key_file(self._file))
        if problem := conflict(keys):
            raise UsageError(f"--api-key {problem}.")
        return keys

    def _use(self, keys: Sequence[ApiKey]) -> None:
        shares: dict[str, Share] = {}
        self._clients = {}
        for key in keys:
            name, rules = key.rules.name, key.rules
            before = shares.get(name) or self._shares.get(name)
            share = before if before is not None and before.rules == rules else Share(rules)
            shares[name] = share
            digest = self._digest(key.text)
            client = Client(name, True, rules.models, salt_of(key.text), share)
            self._clients[digest] = digest, client
        self._shares = shares

    def _look(self) -> None:
        """Reads the file again if it has changed."""
        now = monotonic()
        if self._file is None or now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        found = signature(self._file)
        if found == self._signature:
            return
        self._signature = found
        try:
            self._use(self._read())
        except UsageError as error:
            _log.error("%s The keys from before remain in use.", error)
        else:
            count = len(self._clients) - len(self._given)
            _log.info("The file of --api-key-file has changed; it holds %d keys now.", count)


def salt_of(key: str) -> str:
    """The salt of a key for prefix caches, the same in every ingress of a pool. Workers see it, so
    it is a one-way hash."""
    return blake2b(key.encode(), digest_size=16, person=b"dynemo-salt").hexdigest()


def _candidates(scope: Scope) -> Iterator[str]:
    for value in find_headers(scope, b"authorization"):
        kind, _, text = value.partition(" ")
        if kind.lower() == "bearer":
            yield text.strip()
    yield from (value.strip() for value in find_headers(scope, b"x-api-key"))
