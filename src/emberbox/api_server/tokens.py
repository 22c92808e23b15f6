"""Keys of teams and tokens of sandboxes, as E2B makes them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass

KEY_PREFIX = "e2b_"
_KEY_BYTES = 20


@dataclass(frozen=True, slots=True)
class KeyMask:
    """What may be shown of a key."""

    prefix: str
    first: str
    last: str
    length: int

    def __str__(self) -> str:
        return f"{self.prefix}{self.first}…{self.last}"


def new_api_key() -> str:
    """`e2b_` and 40 hex characters."""
    return KEY_PREFIX + secrets.token_hex(_KEY_BYTES)


def hash_api_key(key: str) -> str | None:
    """The stored form: SHA-256 of the decoded hex, base64 without padding. None: not a key.

    Unsalted on purpose: keys are 160 random bits, and equality is the index look-up.
    """
    if not key.startswith(KEY_PREFIX):
        return None
    try:
        value = binascii.unhexlify(key.removeprefix(KEY_PREFIX))
    except ValueError:  # binascii.Error, and characters outside ASCII
        return None
    if not value:
        return None
    digest = base64.b64encode(hashlib.sha256(value).digest()).decode().rstrip("=")
    return f"$sha256${digest}"


def mask_api_key(key: str) -> KeyMask:
    """Prefix, first 2 and last 4 characters."""
    value = key.removeprefix(KEY_PREFIX)
    return KeyMask(KEY_PREFIX, value[:2], value[-4:], len(value))


@dataclass(frozen=True, slots=True)
class SandboxTokens:
    """Derives the tokens of sandboxes: never stored, the same again at every connect."""

    seed: str

    def envd(self, sandbox_id: str) -> str:
        """The token that envd demands."""
        return self._derive(sandbox_id)

    def traffic(self, sandbox_id: str) -> str:
        """The token that the data proxy demands when traffic is not public."""
        return self._derive(f"sandbox-traffic-{sandbox_id}")

    def _derive(self, message: str) -> str:
        return hmac.new(self.seed.encode(), message.encode(), hashlib.sha256).hexdigest()
