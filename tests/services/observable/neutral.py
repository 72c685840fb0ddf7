"""Replaces what no two installations have alike by its place, so that all the rest is compared as it is.

A hash over a secret nonce, a signature on it and a random key cannot be equal in two installations. Each becomes
``HASH n``, ``SIGNATURE n`` or ``KEY n``, where n is its place among those that the installation has given. So it is
compared which of them are equal, their order and their number, and everything beside them character by character.
"""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH_BYTES, SIGNATURE_BYTES = 32, 64

_HASHES = ("nonce", "hash", "head", "previous", "commitment")
"""Keys of a signed statement whose values follow from secret nonces; what else it holds is compared as it is."""

_EVIDENCE = "SELECT head, audit_head, envelope FROM work.evidence ORDER BY request_id"
_HEX = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{80,}={0,2}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NOW = re.compile(
    r'<time datetime="(?!2020-01-01)[^<]*</time>|(?!2020-01-01)\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?'
    r"|(?<![\d:T-])(?<!\d )\d\d:\d\d(?![\d:])"
)
_ROOM = re.compile(r"[0-9.,]+ GB free")
_LATENCY = re.compile(r"(total_ms|ms_per_row)(\W+)[0-9.e-]+|[0-9.]+ ms\b")
_CLOCK = re.compile(r"clock is [0-9.]+ s (ahead|behind)")


class Neutral:
    """What is random in one installation, by name.

    Attributes:
        names: Text to what stands for it: hashes, signatures and the payloads of signed statements that left.
        heads: Heads of the chains of sets in the order in which they left, each once.
    """

    def __init__(self, lab: Any) -> None:
        self._lab = lab
        self._others: set[str] = set()
        self.names: dict[str, str] = {}
        self.heads: list[str] = []

    def text(self, shown: str) -> str:
        """Without the database's name, what is random, and the present time; times of the frozen past stay."""
        texts = {match.group() for kind in (_HEX, _BASE64) for match in kind.finditer(shown)}
        if texts - self.names.keys() - self._others:
            self._look_again()
            self._others |= texts - self.names.keys()
        return self._replaced(shown)

    def _replaced(self, shown: str) -> str:
        for kind in (_BASE64, _HEX):
            shown = kind.sub(lambda match: self.names.get(match.group(), match.group()), shown)
        keys: dict[str, str] = {}
        shown = _UUID.sub(lambda match: keys.setdefault(match.group(), f"KEY {len(keys)}"), shown)
        shown = _ROOM.sub("ROOM", _LATENCY.sub("LATENCY", shown))
        return _CLOCK.sub("CLOCK", _NOW.sub("NOW", shown)).replace(self._lab.name, "DATABASE")

    def envelope(self, envelope: Any) -> Any:
        """A signed statement, with its payload as text and what is random by name."""
        if envelope is None:
            return None
        return self.text(json.dumps(envelope, sort_keys=True))

    def _look_again(self) -> None:
        for head, audit_head, envelope in self._lab.rows(_EVIDENCE, store=self._lab.worker):
            for hashed in (head, audit_head):
                assert len(bytes.fromhex(hashed)) == HASH_BYTES
                self._name(hashed, "HASH")
            if head not in self.heads:
                self.heads.append(head)
            if envelope is not None and envelope["payload"] not in self.names:
                self._open(envelope)

    def _open(self, envelope: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(envelope["payload"]))
        for key, value in _leaves(statement):
            if key in _HASHES and isinstance(value, str) and _HEX.fullmatch(value):
                self._name(value, "HASH")
            if key == "signature" and value is not None:
                self._sign(value)
        for signature in envelope["signatures"]:
            self._sign(signature["sig"])
        self.names[envelope["payload"]] = self._replaced(json.dumps(statement, sort_keys=True))

    def _sign(self, signature: str) -> None:
        assert len(base64.b64decode(signature)) == SIGNATURE_BYTES
        self._name(signature, "SIGNATURE")

    def _name(self, value: str, kind: str) -> None:
        self.names.setdefault(value, f"{kind} {len(self.names)}")


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no container, with the key that it stands under."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _leaves(part, name)
    elif isinstance(value, list):
        for part in value:
            yield from _leaves(part, key)
    else:
        yield key, value
