"""Which trials run next: all studies' results go in, trials with their reasons come out.

One call, from a process that keeps nothing. Whoever asks again and again keeps a ``LiveScheduler`` (``scheduler.py``),
which is what this makes for its one ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from easeml_core.services.selection.scheduler import LiveScheduler

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from easeml_core.store.database import Store


def suggest_trials(
    store: Store,
    *,
    count: int,
    policy: str | None = None,
    studies_only: Sequence[str] | None = None,
    device: str | None = None,
    functions: Collection[str] | Mapping[str, str] = (),
    trainers: bool = True,
    request_key: str,
) -> dict[str, Any]:
    """Suggest up to ``count`` trials over all active studies, and store them with their reasons.

    Trials that an earlier run left behind come first; no candidate is ever suggested twice for the same data, also none
    that failed or was cancelled on it, but where its task had failed and was mended (``retry.py``). Where a budget
    or a quota holds, a trial reserves device seconds: see ``services/studies/compute_budget.py``.

    Args:
        store: Role ``easeml_worker``.
        count: How many at most, 1 to 1000.
        policy: One of ``easeml_core.config.POLICIES``; None for that of the installation, see ``policy.py``.
        studies_only: Names of the studies to choose from; None for all active ones.
        device: Kind of the free device, such as ``gpu``; candidates that need another one are left out. None means
            that every candidate can run.
        functions: Names of the training functions (``@trial``) that whoever asks has; candidates of others are left
            out. With the hashes of their sources (``executors.source_hash``), a trial that failed because of an earlier
            source is retried.
        trainers: Whether it has the trainers of this package; every candidate that needs one is left out otherwise.
        request_key: Makes the call repeatable: the same key gives the same trials.

    Returns:
        ``{"policy", "trials": [{"trial_id", "study", "candidate", "reason"}], "message"}``. No trials is an answer.

    Raises:
        ConfigError: Count, policy or device is not allowed.
        NotFoundError: One of the studies does not exist.
    """
    scheduler = LiveScheduler(store, policy=policy, studies_only=studies_only, functions=functions, trainers=trainers)
    return scheduler.ask(count=count, device=device, request_key=request_key)
