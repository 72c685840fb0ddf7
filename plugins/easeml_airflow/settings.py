"""How this installation behaves: the options of the section ``[easeml]`` of Airflow's configuration.

``OPTIONS`` is the single list: the provider's metadata declares it to Airflow, the functions below read it. They read
at call time, so that a changed environment needs no reload; each option is overridden by ``AIRFLOW__EASEML__<NAME>``.
Airflow's configuration reads the provider's metadata while it starts, so this module must not import Airflow.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

SECTION = "easeml"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of ``[easeml]``: its name, type, default (as text) and the help that people read."""

    name: str
    type: str
    default: str
    description: str


OPTIONS = (
    Option(
        "conn_id",
        "string",
        "easeml_default",
        "Connection that the pages, and every task that names no other, use to reach the database of Ease.ml.",
    ),
    Option(
        "policy",
        "string",
        "stored",
        "How the next trials are chosen where a task names no policy: stored, as `easeml policy set` or "
        "`easeml backtest --apply` have set it for the installation, or the name of a policy, such as hybrid.",
    ),
    Option(
        "poll_interval_seconds",
        "float",
        "60",
        "How often a waiting task looks by itself. Notifications wake it at once; this is the safety net.",
    ),
    Option(
        "answer_timeout_seconds",
        "float",
        "3600",
        "How long a task waits for the referee's answer before it fails and says so, beside what the next option adds.",
    ),
    Option(
        "answer_timeout_seconds_ahead",
        "float",
        "30",
        "How much longer it waits for each request without an answer that was filed before its own.",
    ),
    Option(
        "answer_wait_seconds",
        "float",
        "2",
        "How long a deferrable task waits for the referee's answer on its worker before it defers, so that a quick "
        "answer costs no second start of the task; 0 to defer at once, as it does where many requests are ahead.",
    ),
    Option(
        "label_timeout_seconds",
        "float",
        "604800",
        "How long a gate waits for its verdict, for which people may have to give labels first, before it fails; "
        "answer_timeout_seconds_ahead adds to it, too.",
    ),
    Option(
        "api_dag",
        "string",
        "easeml_feed_retraining",
        "DAG whose rights apply to a study: users who may trigger it may feed, refine, pause and hand "
        "in; users who may see its runs may read its pages and infer. {study} stands for the study's name or "
        "{tenant} for its tenant's, never both.",
    ),
    Option(
        "referees",
        "string",
        "nobody",
        "Names of the users of Airflow, with commas between, who own the sealed sets: pages show them full reports, "
        "and let them plan, retire and release. They alone approve forced promotions, so every component needs "
        "the list.",
    ),
    Option(
        "labelers",
        "string",
        "nobody",
        "Names of the users of Airflow, with commas between, who may see the sealed examples that labels are wanted "
        "for, and label them.",
    ),
    Option(
        "page_refresh_seconds",
        "integer",
        "10",
        "How often a page inside Airflow fetches itself anew where the stream of events does not get through; 0 "
        "switches both off.",
    ),
    Option(
        "cache_folder",
        "string",
        "account",
        "Where a worker keeps artifacts that lie at an address, such as s3://BUCKET/PATH: the path of a folder of its "
        "own account, or account for EASEML_CACHE, else easeml in the account's folder for caches.",
    ),
    Option(
        "cache_limit_mb",
        "integer",
        "20000",
        "Megabytes that this cache may take; what was not used for the longest time goes first, never what is in use.",
    ),
)


def _text(name: str) -> str:
    """The option as text; the default holds for folder installs too, whose metadata Airflow does not see."""
    from airflow.providers.common.compat.sdk import conf

    fallback = next(option.default for option in OPTIONS if option.name == name)
    return str(conf.get(SECTION, name, fallback=fallback))


def conn_id() -> str:
    """Connection that is used by default."""
    return _text("conn_id")


def policy() -> str | None:
    """Policy that is used by default; None for the one that is stored in the installation's database."""
    name = _text("policy")
    return None if name == "stored" else name


def poll_interval_seconds() -> float:
    """Seconds between two polls while waiting."""
    return float(_text("poll_interval_seconds"))


def answer_timeout_seconds() -> float:
    """Seconds that a task waits for the referee."""
    return float(_text("answer_timeout_seconds"))


def answer_timeout_seconds_ahead() -> float:
    """Seconds that it waits longer for each earlier request."""
    return float(_text("answer_timeout_seconds_ahead"))


def answer_wait_seconds() -> float:
    """Seconds that a deferrable task waits on its worker before it defers."""
    return float(_text("answer_wait_seconds"))


def label_timeout_seconds() -> float:
    """Seconds that a gate waits for its verdict."""
    return float(_text("label_timeout_seconds"))


def api_dag() -> str:
    """The DAG, with ``{study}`` or ``{tenant}`` for a name, whose rights those on the service are."""
    from easeml_core.errors import ConfigError

    template = _text("api_dag")
    if "{study}" in template and "{tenant}" in template:
        field = f"[{SECTION}] api_dag"
        allowed = "with {study} (unique) or {tenant} in it, not both: two teams' studies could share a DAG"
        raise ConfigError(field, template, allowed)
    return template


def referees() -> frozenset[str]:
    """Names of those who own the sealed sets."""
    return _names("referees")


def labelers() -> frozenset[str]:
    """Names of those who may label sealed examples."""
    return _names("labelers")


def _names(option: str) -> frozenset[str]:
    """Names separated by commas; the word ``nobody`` stands for none."""
    return frozenset(name.strip() for name in _text(option).split(",") if name.strip()) - {"nobody"}


def page_refresh_seconds() -> int:
    """Seconds between two fetches of the page; 0 means never."""
    return int(_text("page_refresh_seconds"))


def cache_folder() -> str | None:
    """Folder for artifacts that lie at an address; None for the account's own."""
    folder = _text("cache_folder")
    return None if folder == "account" else folder


def cache_limit_mb() -> int:
    """Megabytes that the cache may take."""
    return int(_text("cache_limit_mb"))


def base_path() -> str:
    """The path under which Airflow is served, without a slash at its end: ``""`` or, say, ``/airflow``."""
    return _base_url().path.rstrip("/")


def own_address() -> str | None:
    """Return Airflow's address, such as ``https://example.org``; None where ``[api] base_url`` has none."""
    address = _base_url()
    return f"{address.scheme}://{address.netloc}" if address.scheme in ("http", "https") and address.netloc else None


def _base_url() -> SplitResult:
    from airflow.providers.common.compat.sdk import conf

    return urlsplit(str(conf.get("api", "base_url", fallback="") or ""))
