"""What hostile code of a task would try; a program of its own that prints what it found."""

import contextlib
import ctypes
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

PTRACE_ATTACH, PTRACE_DETACH, CHECK_ONLY = 16, 17, 0
KNOWN = (
    *(
        "keys.json",
        "secret.json",
        "stack.json",
        "passwords.json",
        "airflow.cfg",
        "data/table.csv",
        "postgres/secrets.json",
        "secrets.json",
    ),
    *("logs/referee.log", "logs/easeml-upgrade.log", "logs/launcher.log"),
)
LIBC = ctypes.CDLL(None, use_errno=True)


def has_mark(content: Any, marks: Any) -> Any:
    return any(mark.encode() in content for mark in marks)


def other_processes() -> Any:
    """Every process that is not this one's own account's: what that one knows it may know."""
    return [p for p in map(int, filter(str.isdigit, os.listdir("/proc"))) if p != os.getpid()]


def environs(marks: Any) -> Any:
    found = []
    for pid in other_processes():
        for name in ("environ", "cmdline"):
            with contextlib.suppress(OSError):
                if has_mark(Path(f"/proc/{pid}/{name}").read_bytes(), marks):
                    found.append(pid)
    return sorted(set(found))


def files(roots: Any, marks: Any) -> Any:
    """Every file below, by listing where it may and by the names that the installation is known to use."""
    found = set()
    for root in map(Path, roots):
        listed = [Path(folder) / name for folder, _, names in os.walk(root) for name in names]
        for path in (*listed, *(root / name for name in KNOWN)):
            with contextlib.suppress(OSError):
                if has_mark(path.read_bytes(), marks):
                    found.add(str(path))
    return sorted(found)


def memories(victims: Any) -> Any:
    found = []
    for pid in victims:
        for name in ("mem", "maps", "fd/1", "root/etc/passwd", "cwd/."):
            with contextlib.suppress(OSError):
                os.close(os.open(f"/proc/{pid}/{name}", os.O_RDONLY))
                found.append(pid)
    return sorted(set(found))


def signalled(victims: Any) -> Any:
    found = []
    for pid in victims:
        with contextlib.suppress(OSError):
            os.kill(pid, CHECK_ONLY)
            found.append(pid)
    return found


def traced(victims: Any) -> Any:
    found = []
    for pid in victims:
        if LIBC.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
            found.append(pid)
            os.waitpid(pid, 0x40000000)
            LIBC.ptrace(PTRACE_DETACH, pid, None, None)
    return found


def entered(addresses: Any) -> Any:
    """Log in with no password, and with one's own."""
    if not addresses:
        return []
    import psycopg2

    found = []
    passwords = [None, "", "easeml_referee", "easeml_owner", "postgres"]
    for name in ("AIRFLOW_CONN_EASEML_DEFAULT", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"):
        with contextlib.suppress(KeyError, ValueError):
            passwords.append(json.loads(os.environ[name])["password"])
    for address in addresses:
        for password in passwords:
            with contextlib.suppress(psycopg2.Error):
                given: dict[str, Any] = {} if password is None else {"password": password}
                psycopg2.connect(address, **given).close()
                found.append(address)
    return found


def signed(page: Any) -> Any:
    """The status of a page that is asked for with a token of the admin's, signed with the key that Airflow gave us."""
    if not page:
        return None
    import jwt

    now = int(time.time())
    claims = {"sub": "admin", "role": "ADMIN", "aud": "apache-airflow", "iat": now, "nbf": now, "exp": now + 600}
    token = jwt.encode(claims, own("AIRFLOW__API_AUTH__JWT_SECRET"), algorithm="HS512")
    asked = urllib.request.Request(page, headers={"Authorization": f"Bearer {token}"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(asked, timeout=60).status
    except urllib.error.HTTPError as error:
        return error.code


def own(name: Any) -> Any:
    """A variable of our own, or of the processes that started us: a task's is cleaned, theirs is not."""
    if name in os.environ:
        return os.environ[name]
    for pid in other_processes():
        with contextlib.suppress(OSError):
            found = re.search(rf"(?:^|\0){name}=([^\0]*)".encode(), Path(f"/proc/{pid}/environ").read_bytes())
            if found:
                return found[1].decode()
    return ""


def status(name: Any) -> Any:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    victims = asked["victims"]
    print(
        json.dumps(
            {
                "uid": list(os.getresuid()),
                "groups": sorted({*os.getgroups(), os.getgid()}),
                "no_new_privs": status("NoNewPrivs"),
                "capabilities": int(status("CapEff"), 16) | int(status("CapPrm"), 16) | int(status("CapAmb"), 16),
                "seen": len(other_processes()),
                "environ": environs(asked["marks"]),
                "files": files(asked["roots"], asked["marks"]),
                "memory": memories(victims),
                "signalled": signalled(victims),
                "traced": traced(victims),
                "entered": entered(asked.get("addresses", [])),
                "signed": signed(asked.get("pages")),
            }
        )
    )
