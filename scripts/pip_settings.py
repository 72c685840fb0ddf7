"""Pip's settings, from its files and variables, as options and variables of uv; standard library only.

Users set index, certificates and sources of CPU builds for pip. What uv downloads must come from the same places, or it
may take another build of torch, of several gigabytes. A setting that has no counterpart is an error here, so that pip
installs. Variables of uv's own, such as ``UV_DEFAULT_INDEX``, take precedence over pip's settings.
"""

from __future__ import annotations

import ast
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SECTIONS = ("global", "install", ":env:")  # a later one takes precedence
WITHOUT_EFFECT = {
    "cache-dir", "compile", "disable-pip-version-check", "exists-action", "log", "no-color", "no-compile", "no-input",
    "no-python-version-warning", "no-warn-script-location", "prefer-binary", "progress-bar", "quiet",
    "require-virtualenv", "root-user-action", "upgrade-strategy", "use-feature", "verbose",
}  # fmt: skip
"""Settings that change neither what is installed nor from where."""

OPTIONS = {
    "constraint": ("--constraint", "UV_CONSTRAINT"),
    "trusted-host": ("--allow-insecure-host", "UV_INSECURE_HOST"),
    "only-binary": ("--only-binary", ""),
    "no-binary": ("--no-binary", ""),
}
"""Settings of several values -> uv's option, which is given once for each, and the variable that says the same."""

FLAGS = {
    "no-index": (("--no-index",), "UV_NO_INDEX"),
    "pre": (("--prerelease", "allow"), "UV_PRERELEASE"),
    "no-cache-dir": (("--no-cache",), "UV_NO_CACHE"),
}
"""Settings that are on or off -> what uv is given where they are on, and the variable that says the same."""

VARIABLES = {
    "index-url": ("UV_DEFAULT_INDEX",),
    "extra-index-url": ("UV_INDEX",),
    "find-links": ("UV_FIND_LINKS",),
    "cert": ("SSL_CERT_FILE",),
    "client-cert": ("SSL_CLIENT_CERT",),
    "proxy": ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY"),
    "timeout": ("UV_HTTP_TIMEOUT",),
    "default-timeout": ("UV_HTTP_TIMEOUT",),
    "retries": ("UV_HTTP_RETRIES",),
}
"""Setting -> the variables that say the same to uv.

Addresses are passed by variables since they may hold passwords, which options would show to every account.
"""

FORMER_NAMES = {"UV_DEFAULT_INDEX": "UV_INDEX_URL", "UV_INDEX": "UV_EXTRA_INDEX_URL"}
"""Variable of uv -> the older one in which users may have given the same."""


class UnsupportedSettingError(Exception):
    """Pip has a setting that cannot be passed on to uv."""


def settings_of(python: Path) -> dict[str, str]:
    """Return the settings under which the pip of an environment installs, by name.

    Raises:
        UnsupportedSettingError: Pip does not list them.
    """
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    if listed.returncode:
        message = f"pip does not list its settings ({listed.stderr.strip()[-200:]})"
        raise UnsupportedSettingError(message)
    return merge_settings(listed.stdout.splitlines())


def merge_settings(lines: Iterable[str]) -> dict[str, str]:
    """Return what holds for ``pip install`` from the lines of ``pip config list``.

    Example:
        >>> merge_settings(["global.timeout='9'", "install.pre='true'", ":env:.timeout='60'", "wheel.pre='no'"])
        {'timeout': '60', 'pre': 'true'}
    """
    found: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for line in lines:
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in found:
            found[section][name] = str(ast.literal_eval(value))
    return {name: value for section in SECTIONS for name, value in found[section].items() if value}


def uv_options(settings: Mapping[str, str], environment: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Return the options and the variables that make uv do what pip would do under the settings.

    Args:
        settings: Pip's, by name.
        environment: Of this process; uv's variables in it take precedence.

    Raises:
        UnsupportedSettingError: A setting has no counterpart; names it.

    Example:
        >>> uv_options({"find-links": "/wheels", "index-url": "https://i"}, {})
        ([], {'UV_FIND_LINKS': '/wheels', 'UV_DEFAULT_INDEX': 'https://i'})
    """
    options: list[str] = []
    variables: dict[str, str] = {}
    for name, value in settings.items():
        if name in OPTIONS:
            option, variable = OPTIONS[name]
            options += [part for each in value.split() for part in (option, each) if variable not in environment]
        elif name in FLAGS:
            flag, variable = FLAGS[name]
            options += flag if _is_on(value) and variable not in environment else ()
        elif name in VARIABLES:
            given = {
                v
                for v in VARIABLES[name]
                if v.startswith("UV_") and (v in environment or FORMER_NAMES.get(v, v) in environment)
            }
            said = ",".join(value.split()) if name == "find-links" else value
            variables |= dict.fromkeys(set(VARIABLES[name]) - given, said)
        elif name not in WITHOUT_EFFECT:
            message = f"pip's setting {name!r} has no counterpart in uv"
            raise UnsupportedSettingError(message)
    if "UV_INDEX" in variables and "UV_INDEX_STRATEGY" not in environment:
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip; uv by default takes the first index that has any
    return options, variables


def _is_on(value: str) -> bool:
    return value.lower() in ("1", "true", "yes", "on", "y", "t")
