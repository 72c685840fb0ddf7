"""Files that tenants upload for a new study: stored where all components reach them, for a few days at most.

They are in a separate part of the tenant's artifacts, by day, and only a study of that tenant is read from them. An
upload holds rows that are sealed later, with their labels, known to the uploading user alone. The referee therefore
removes it when its study is sealed, and after ``KEPT_DAYS`` in any case.
"""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from easeml_core.data.sources.files import unpack_upload
from easeml_core.data.sources.spec import SCHEMES, UploadName, is_upload, parse_source, plain_file_name, upload_of
from easeml_core.entities import StudyState
from easeml_core.errors import ArtifactError, InvalidInputError
from easeml_core.settings.limits import NAME
from easeml_core.store.artifacts.remote import is_of_store
from easeml_core.store.tables import studies
from easeml_core.store.tables.datasets import uses_of_uploads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path

    from easeml_core.data.sources.spec import Source
    from easeml_core.store.artifacts.local import ArtifactStore
    from easeml_core.store.database import Store

PART = "uploads"
KEPT_DAYS = 7
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def keep_upload(artifacts: ArtifactStore, path: Path, *, tenant: str, file: str, today: date) -> UploadName:
    """Store a copy of a file for a study of a tenant; the same file of the same day is stored once."""
    reference = artifacts.of_tenant(tenant).part(PART, today.isoformat()).put(path)
    return UploadName(today.isoformat(), reference.partition(":")[2], plain_file_name(file))


@contextmanager
def opened_upload(artifacts: ArtifactStore, source: Source, *, tenant: str) -> Iterator[Path]:
    """Yield the file, or the unpacked folder, that a source names among a tenant's uploads; private, for the block."""
    upload = upload_of(source.name)
    with ExitStack() as held:
        copy = held.enter_context(_copied(artifacts, upload, tenant))
        if SCHEMES[source.scheme].reads == "folder":
            folder = copy.with_name("unpacked")
            folder.mkdir()
            yield unpack_upload(copy, folder)
        else:
            yield copy


def forget_uploads(store: Store, artifacts: ArtifactStore, today: date) -> tuple[str, ...]:
    """Remove old uploads, and those of sealed studies unless a study that waits for sealing needs them."""
    oldest = (today - timedelta(days=KEPT_DAYS)).isoformat()
    with store.begin() as tx:  # where tenants' folders are closed, what lies above them cannot be listed
        tenants = {tenant.name for tenant in studies.list_tenants(tx)}.union(artifacts.tenants())
    kept, stay = set[str](), set[str]()
    for place in map(artifacts.of_tenant, sorted(tenants)):
        for day in filter(_DAY.fullmatch, place.parts(PART)):
            if day < oldest:
                place.remove_part(PART, day)
                if day in place.parts(PART):
                    stay.add(f"{place.place}/{PART}/{day}")
            else:
                kept.add(day)
    if not kept:
        return tuple(sorted(stay))
    with store.begin() as tx:
        uses = [(use.state, use.tenant, _uploaded(use.source)) for use in uses_of_uploads(tx, sorted(kept))]
    waiting = {(tenant, upload) for state, tenant, upload in uses if state == StudyState.REGISTERED}
    done = {(tenant, upload) for state, tenant, upload in uses if state in (StudyState.ACTIVE, StudyState.PAUSED)}
    for tenant, upload in done - waiting:
        if upload is not None and NAME.holds(tenant):
            place = _part_of(artifacts, upload, tenant)
            place.discard(upload.reference)
            if place.holds_itself(upload.reference):
                stay.add(f"{place.place}, {upload.reference}")
    return tuple(sorted(stay))


@contextmanager
def _copied(artifacts: ArtifactStore, upload: UploadName, tenant: str) -> Iterator[Path]:
    """Yield a private copy under the name that the user gave the file, which appears in errors and notes."""
    message = (
        f"there is no upload {upload.file!r} of {upload.day} of tenant {tenant!r}; uploads are removed once "
        f"their study is sealed, and after {KEPT_DAYS} days: upload the file again"
    )
    if not NAME.holds(tenant):
        raise InvalidInputError(message)
    with ExitStack() as held:
        try:
            copy = held.enter_context(_part_of(artifacts, upload, tenant).copy(upload.reference))
        except ArtifactError as error:
            if is_of_store(error):  # it may be there: the study waits for its store
                raise
            raise InvalidInputError(message) from error
        yield copy.rename(copy.with_name(upload.file))


def _part_of(artifacts: ArtifactStore, upload: UploadName, tenant: str) -> ArtifactStore:
    """Return where an upload of a tenant lies."""
    return artifacts.of_tenant(tenant).within(PART, upload.day)  # an invented name leaves no folder


def _uploaded(source: str) -> UploadName | None:
    """Return the upload of a study's source; None for a name that no upload has."""
    try:
        name = parse_source(source).name
        return upload_of(name) if is_upload(name) else None
    except InvalidInputError:
        return None
