"""``feed``: labelled pairs are added to a study and wait for its next refresh.

A new data version sends every candidate to be trained again, and pairs often come one at a time. All that has come
since is therefore taken together, at night or on request (``services/datasets/refresh.py``).
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from easeml_core.data.rows.labeled_pairs import Pairs, write_pairs
from easeml_core.data.rows.row_files import read_rows
from easeml_core.data.rows.row_format import LABEL, rows_of_json
from easeml_core.data.split_spec import check_split
from easeml_core.entities import RequestKind, StudyState
from easeml_core.errors import InvalidInputError, NotFoundError, StateError
from easeml_core.files.local import scratch_folder
from easeml_core.formats.encoding import typed_record
from easeml_core.services.datasets.refresh import MOST_FEEDS
from easeml_core.services.datasets.validation_rows import brought_files
from easeml_core.services.studies.columns import row_form
from easeml_core.settings.config import require
from easeml_core.store.tables import capacity, datasets, models, requests, studies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from easeml_core.entities import DataVersion, Study
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

MOST_REFRESHES = 3
"""Largest number of unanswered refreshes of one study: each rewrites the training part, between other decisions."""

LONGEST_NAME = 200


@typed_record
class FeedReceipt:
    """Pairs that were fed to a study."""

    study: str
    feed_id: int
    rows: int


@typed_record
class FeedEntry:
    """A feed in the list of its study; ``state`` is ``waiting``, ``taken`` or ``refused``, with a reason."""

    feed_id: int
    fed_at: datetime
    rows: int
    origin: str
    fed_by: str
    state: str
    reason: str | None


@typed_record
class FiledRefresh:
    """A request to make a data version of what was fed and switched."""

    request_id: int


def feed(
    store: Store,
    artifacts: ArtifactStore,
    *,
    study: str,
    path: Path | None = None,
    labels: Path | None = None,
    label_column: str = LABEL,
    pairs: Sequence[Any] | None = None,
    fed_by: str,
    request_key: str,
) -> FeedReceipt:
    """Feed labelled pairs; they are in the training part after the study's next refresh."""
    if (path is None) == (pairs is None) or (labels is not None and path is None):
        message = "give pairs, or the path of a file or folder; labels go with a file of inputs"
        raise InvalidInputError(message)
    who = require_name("fed_by", fed_by)
    with store.begin() as tx:
        found, version = active_study(tx, study)
        artifacts = artifacts.of_tenant(found.tenant)
        check_split(found.config.get("split")).require_feedable()
        form = row_form(tx, artifacts, version)
        if path is not None and labels is not None:
            brought = brought_files(path, labels, form)
            origin, given = path.name, Pairs(brought.inputs, brought.labels)
        else:
            rows = rows_of_json(pairs or [], form, labelled=True, origin="pairs") if path is None else None
            rows = rows or read_rows(Path(path or ""), form, label=label_column)
            assert rows.labels is not None
            origin, given = "pairs" if path is None else path.name, Pairs(rows.inputs, rows.labels)
        if datasets.count_waiting(tx, found.id, but=request_key) >= MOST_FEEDS:
            message = (
                f"{MOST_FEEDS:,} feeds of study {study!r} wait for a refresh already (`easeml refine apply {study}`); "
                "bring many pairs in one file"
            )
            raise StateError(message)
        feed_id = datasets.add_feed(
            tx,
            study_id=found.id,
            artifact=_put(artifacts, given),
            rows=len(given.labels),
            origin=_printable(origin),
            fed_by=who,
            request_key=request_key,
        )
    return FeedReceipt(study, feed_id, len(given.labels))


def list_feeds(store: Store, *, study: str) -> list[FeedEntry]:
    """Return the newest feeds of a study, newest first."""
    with store.begin() as tx:
        found = datasets.list_feeds(tx, studies.get_study(tx, study).id)
    return [listed(one) for one in found]


def listed(one: datasets.Feed) -> FeedEntry:
    """Return a feed as it is listed."""
    return FeedEntry(one.id, one.fed_at, one.rows, one.origin, one.fed_by, one.state, one.reason)


def file_refresh(store: Store, *, study: str, request_key: str) -> FiledRefresh:
    """Ask the referee for a data version of what was fed and switched."""
    with store.begin() as tx:
        found, _ = active_study(tx, study)
        if requests.count_unanswered(tx, found.id, RequestKind.REFRESH, but=request_key) >= MOST_REFRESHES:
            message = (
                f"{MOST_REFRESHES} refreshes of study {study!r} wait for the referee's answer already; each takes all "
                "that was brought before it, so wait for them"
            )
            raise StateError(message)
        request_id = requests.file_request(
            tx,
            kind=RequestKind.REFRESH,
            study_id=found.id,
            model_id=None,
            arguments={},
            request_key=request_key,
        )
    return FiledRefresh(request_id)


def require_refresh(store: Store, *, study: str, request_id: int) -> None:
    """Check that the request is a refresh of this study."""
    with store.begin() as tx:
        request, found = requests.get_request(tx, request_id)
        if (request.kind, found.id) != (RequestKind.REFRESH, studies.get_study(tx, study).id):
            raise NotFoundError(kind=f"refresh of study {study!r} with request", name=request_id)


def studies_that_wait(store: Store, *, most: int = 1000) -> list[str]:
    """Return the names of the active studies whose feeds and switches are not yet released.

    A study is one of them while no refresh has taken a feed or a switch, while it can get a trial on the training part
    that a refresh has made, and while the best model of that waits for a verdict. That is a state, and holds whatever
    became of the run that has asked for it before.
    """
    require(most >= 1, "most", most, ">= 1")
    with store.begin(writes=False) as tx:
        found = datasets.fed_studies(tx)
        newest = [study.name for study in found if study.is_newest]
        left = set(capacity.studies_to_train(tx, newest)) | {b.study for b in models.best_to_judge(tx, newest)}
    return [study.name for study in found if not study.is_newest or study.name in left][:most]


def active_study(tx: Connection, study: str) -> tuple[Study, DataVersion]:
    """Return a study whose data may change, with its newest data."""
    found = studies.get_study(tx, study)
    if found.state == StudyState.ARCHIVED:
        message = f"study {study!r} is archived, so nothing can be fed to it; `easeml study restore {study}`"
        raise StateError(message)
    if found.state == StudyState.REFUSED:
        message = f"study {study!r} was refused, so nothing can be fed to it; `easeml study show {study}` says why"
        raise StateError(message)
    return found, studies.latest_data_version(tx, found.id)


def require_name(name: str, value: str) -> str:
    """Return the validated name of the user who does something."""
    is_fine = isinstance(value, str) and value.strip() != "" and value.isprintable() and len(value) <= LONGEST_NAME
    require(is_fine, name, value, f"1 to {LONGEST_NAME} printable characters")
    return value.strip()


def _printable(origin: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in origin)[:LONGEST_NAME] or "?"


def _put(artifacts: ArtifactStore, pairs: Pairs) -> str:
    with scratch_folder("feed") as folder:
        path = Path(folder) / "pairs.npz"
        write_pairs(path, pairs)
        return artifacts.put(path)
