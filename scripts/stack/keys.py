"""The secrets of one stack's Airflow, made once and kept; with a new Fernet key old connections could not be read."""

from __future__ import annotations

import base64
import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from easeml_core.store.server_files import SecretFile, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from stack.account import Account

ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Keys:
    """What Airflow's components share, and the password of the one user of the UI."""

    fernet: str
    jwt: str
    api: str
    admin_password: str


def load_keys(path: Path) -> Keys:
    """The keys kept in the file, which its owner alone can read; the first call makes them.

    32 random bytes for each of the machines' keys, 12 for the password that a person has to type.
    """
    kept = SecretFile(path)
    return Keys(
        fernet=kept.get_or_make("fernet_key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()),
        jwt=kept.get_or_make("jwt_secret", lambda: secrets.token_hex(32)),
        api=kept.get_or_make("api_secret_key", lambda: secrets.token_hex(32)),
        admin_password=kept.get_or_make("admin_password", lambda: secrets.token_urlsafe(12)),
    )


def write_passwords(path: Path, keys: Keys, account: Account | None = None) -> None:
    """Write the file of user names and passwords that SimpleAuthManager reads, for the account that it runs under.

    Made beside the folder, not in it: what root does in a folder of another account can be turned against root.
    """
    made = path.parent.with_name(path.name)
    write_atomically(made, json.dumps({ADMIN: keys.admin_password}))
    if account is not None:
        os.chown(made, account.uid, account.gid)
    made.replace(path)
