"""The secrets of one stack's Airflow, made once and kept; with a new Fernet key old connections could not be read."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.files.local import write_durably
from easeml_core.store.server.place import SecretFile

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from stack.account import Account

ADMIN = "admin"
USERS = {
    ADMIN: "operator and referee",
    "op": "operator and labeler",
    "user": "may hand in and change",
    "viewer": "may only look",
}
"""The users of the UI, each named as its role in Airflow is, and what they are on the pages of Ease.ml."""


@dataclass(frozen=True, slots=True)
class Keys:
    """What Airflow's components share, what its API server alone knows, and the users' passwords by name.

    Attributes:
        fernet: Encrypts connections.
        jwt: Signs the tokens of tasks, and where all is one account those of people, too.
        api: Signs what the API server hands out and gets back.
        people_jwt: Signs the tokens of people where tasks must not be able to.
        broker: Password of Celery's broker.
        store: Access key of the object store.
        passwords: Of the users.
    """

    fernet: str
    jwt: str
    api: str
    people_jwt: str
    broker: str
    store: str
    passwords: Mapping[str, str]

    @property
    def admin_password(self) -> str:
        """Of the user who may everything."""
        return self.passwords[ADMIN]


def load_keys(path: Path) -> Keys:
    """The keys kept in the file, which its owner alone can read; the first call makes them.

    32 random bytes for each of the machines' keys, 12 for each password that a person has to type.
    """
    kept = SecretFile(path)
    return Keys(
        fernet=kept.get_or_make("fernet_key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
        jwt=kept.get_or_make("jwt_secret", lambda: secrets.token_hex(32)),
        api=kept.get_or_make("api_secret_key", lambda: secrets.token_hex(32)),
        people_jwt=kept.get_or_make("people_jwt_secret", lambda: secrets.token_hex(32)),
        broker=kept.get_or_make("password_of_broker", lambda: secrets.token_hex(32)),
        store=kept.get_or_make("key_of_object_store", lambda: secrets.token_hex(32)),
        passwords={name: kept.get_or_make(f"password_of_{name}", lambda: secrets.token_urlsafe(12)) for name in USERS},
    )


def write_passwords(path: Path, keys: Keys, account: Account | None = None) -> None:
    """Write the file of user names and passwords that SimpleAuthManager reads, for the account that it runs under.

    Made beside the folder, not in it: what root does in a folder of another account can be turned against root.
    """
    made = path.parent.with_name(path.name)
    write_durably(made, json.dumps(dict(keys.passwords)))
    if account is not None:
        os.chown(made, account.uid, account.gid)
    made.replace(path)
