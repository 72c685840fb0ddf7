"""Commitments, hash-chain links, Ed25519 signatures and DSSE envelopes: what evidence consists of.

Pure functions of bytes: no file, no database, no clock. A third party who has a bundle and a public key needs this
module and nothing else of the installation.

Sources: Ed25519, RFC 8032 (from the package ``cryptography``); DSSE, https://github.com/secure-systems-lab/dsse
(protocol.md, v1.0.2) for the pre-authentication encoding; in-toto Statement v1,
https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from easeml_core.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from easeml_core.entities import JsonObject

NONCE_BYTES = 32
"""Length of the secret random part of every entry."""

FIRST = bytes(32)
"""What the first entry of a chain names as its predecessor."""

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_HEAD = b"easeml chain head v1\n"
"""Before the hash that is signed, so that a signature on a head is no signature on anything else."""


def canonical(value: Any) -> bytes:
    """Encode plain JSON in one way only: keys sorted by code point, no spaces, UTF-8, numbers as Python writes them.

    Example:
        >>> canonical({"b": 1.5, "a": [None, "é"]}).decode()
        '{"a":[null,"é"],"b":1.5}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        message = f"evidence must be plain JSON with finite numbers: {error}"
        raise InvalidInputError(message) from error


def digest(value: Any) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()


def commit(nonce: bytes, content: Any) -> bytes:
    """Commit to a content: SHA-256 of the nonce and the canonical content.

    Without the nonce the few possible contents (a verdict has two) could be tried one after the other.
    """
    return hashlib.sha256(nonce + canonical(content)).digest()


@dataclass(frozen=True, slots=True)
class Link:
    """The part of an entry that its hash covers; none of it is secret.

    The place in the chain is not part of it: it follows from the links, and a head that leaves the installation must
    not say how many answers were decided before it.

    Attributes:
        chain: Name of the chain.
        kind: What the content is.
        subject: Id of the row that the content describes; None where the entry carries its content itself.
        at: When it was appended, by the referee's clock; no check orders entries by it.
        previous: Hash of the entry before, 32 bytes; ``FIRST`` for the first one.
        commitment: Of the content, 32 bytes; see ``commit``.
    """

    chain: str
    kind: str
    subject: int | None
    at: datetime
    previous: bytes
    commitment: bytes

    def to_json(self) -> JsonObject:
        """As plain JSON; hashes in hexadecimal."""
        return {
            "at": self.at.isoformat(),
            "chain": self.chain,
            "commitment": self.commitment.hex(),
            "kind": self.kind,
            "previous": self.previous.hex(),
            "subject": self.subject,
        }

    def hash(self) -> bytes:
        """SHA-256 of the canonical form, 32 bytes."""
        return hashlib.sha256(canonical(self.to_json())).digest()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that checks signatures.

    Attributes:
        raw: The 32 bytes of RFC 8032.
    """

    raw: bytes

    @property
    def id(self) -> str:
        """SHA-256 (hex) of the raw key: its name everywhere."""
        return hashlib.sha256(self.raw).hexdigest()

    @classmethod
    def parse(cls, pem: bytes, name: str = "the file") -> PublicKey:
        """Read a public key in PEM (SubjectPublicKeyInfo)."""
        try:
            found = serialization.load_pem_public_key(pem)
        except ValueError as error:
            message = f"{name} holds no public key in PEM; name the referee's file ID.pub, an Ed25519 public key"
            raise InvalidInputError(message) from error
        if not isinstance(found, Ed25519PublicKey):
            message = f"{name} holds a key of another kind ({type(found).__name__}); an Ed25519 public key is needed"
            raise InvalidInputError(message)
        return cls(found.public_bytes_raw())

    def pem(self) -> bytes:
        """The key in PEM (SubjectPublicKeyInfo), as OpenSSL and sigstore read it."""
        return Ed25519PublicKey.from_public_bytes(self.raw).public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the signature is this key's on the message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True

    def verifies_head(self, signature: bytes, head: bytes) -> bool:
        """Whether the signature is this key's on the hash of an entry."""
        return self.verifies(signature, _HEAD + head)


class SigningKey:
    """A key that signs; its bytes leave it only through ``pem``.

    Args:
        private: The key.
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    @classmethod
    def new(cls) -> SigningKey:
        """Make a key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def parse(cls, pem: bytes, name: str = "the file") -> SigningKey:
        """Read an unencrypted private key in PEM (PKCS 8)."""
        try:
            found = serialization.load_pem_private_key(pem, password=None)
        except (TypeError, ValueError) as error:
            message = f"{name} holds no private key in PEM: {error}"
            raise InvalidInputError(message) from error
        if not isinstance(found, Ed25519PrivateKey):
            message = f"{name} holds a key of another kind ({type(found).__name__}); an Ed25519 private key is needed"
            raise InvalidInputError(message)
        return cls(found)

    def pem(self) -> bytes:
        """The private key in PEM (PKCS 8), unencrypted: for a file of mode 0600 only."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, message: bytes) -> bytes:
        """Sign a message; 64 bytes."""
        return self._private.sign(message)

    def sign_head(self, head: bytes) -> bytes:
        """Sign the hash of an entry; 64 bytes."""
        return self.sign(_HEAD + head)


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is signed of a payload.

        PAE(type, body) = "DSSEv1" SP LEN(type) SP type SP LEN(body) SP body

    Source: DSSE protocol.md, "Signature Definition"; LEN is the number of bytes in decimal.

    Example:
        >>> pae("http://example.com/HelloWorld", b"hello world")
        b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def statement(*, subject: str, sha256: str, predicate_type: str, predicate: JsonObject) -> JsonObject:
    """An in-toto Statement v1 about one file."""
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": subject, "digest": {"sha256": sha256}}],
        "predicateType": predicate_type,
        "predicate": dict(predicate),
    }


def seal_envelope(content: JsonObject, key: SigningKey) -> JsonObject:
    """Sign a statement: a DSSE envelope in JSON."""
    payload = canonical(content)
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key.public.id, "sig": base64.b64encode(key.sign(pae(PAYLOAD_TYPE, payload))).decode()}
        ],
    }


def open_envelope(envelope: Any, keys: Mapping[str, PublicKey]) -> JsonObject:
    """Check an envelope's signature and give the statement."""
    try:
        kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in envelope["signatures"]]
    except (TypeError, KeyError, binascii.Error, ValueError) as error:
        message = f"this is no DSSE envelope ({type(error).__name__}: {error}); give the file as it was written"
        raise InvalidInputError(message) from error
    signed = pae(str(kind), payload)
    if not any(key.verifies(signature, signed) for signature in signatures for key in keys.values()):
        message = (
            "no trusted key has signed this envelope: it was changed, or another installation signed it; get the "
            "referee's public key by a way of your own (`easeml evidence keys` prints it)"
        )
        raise InvalidInputError(message)
    try:
        found = json.loads(payload)
    except ValueError as error:
        message = f"the payload is no JSON: {error}"
        raise InvalidInputError(message) from error
    if kind != PAYLOAD_TYPE or not isinstance(found, dict) or found.get("_type") != STATEMENT_TYPE:
        message = f"the payload is {kind!r}; an in-toto statement ({STATEMENT_TYPE}) is needed"
        raise InvalidInputError(message)
    return found
