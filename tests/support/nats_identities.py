"""Operator, account and users for a nats-server that requires JWTs, signed like those of `nsc`."""

import base64
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]


class Key:
    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(os.urandom(32), prefix)
        self._pair = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._pair.public_key.decode()

    def sign(self, data: bytes) -> bytes:
        return bytes(self._pair.sign(data))


def user_key() -> Key:
    return Key(nkeys.PREFIX_BYTE_USER)


class Operator:
    """An operator with one account. `config` makes a nats-server trust it."""

    def __init__(self) -> None:
        self._key = Key(nkeys.PREFIX_BYTE_OPERATOR)
        self._account = Key(nkeys.PREFIX_BYTE_ACCOUNT)
        own = _jwt(self._key, self._key.public, {"type": "operator", "version": 2})
        unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn"), -1)
        claims = {"type": "account", "version": 2, "limits": {**unlimited, "wildcards": True}}
        account = _jwt(self._key, self._account.public, claims)
        self.config = (
            f"operator: {own}\nresolver: MEMORY\n"
            f"resolver_preload: {{ {self._account.public}: {account} }}\n"
        )

    def credentials(self, path: Path, seconds: float = 3600) -> Path:
        """Writes a .creds file that expires after this time."""
        user = user_key()
        claims = {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
        jwt = _jwt(self._account, user.public, claims, time.time() + seconds)
        path.write_text(
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n"
            "------END USER NKEY SEED------\n"
        )
        return path


def _jwt(issuer: Key, subject: str, claims: dict[str, Any], expires: float = 0) -> str:
    body: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": issuer.public,
        "name": "test",
        "sub": subject,
        "nats": claims,
    }
    if expires:
        body["exp"] = int(expires)
    digest = hashlib.sha256(json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = _encoded(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    signed = f"{head}.{_encoded(json.dumps(body).encode())}"
    return f"{signed}.{_encoded(issuer.sign(signed.encode()))}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
