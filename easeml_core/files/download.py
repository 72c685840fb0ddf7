"""One download, resumed where the last one stopped, within a bound, and of one version from end to end."""

from __future__ import annotations

import errno
import math
import time
from typing import TYPE_CHECKING

from easeml_core.files.remote_file import PERMANENT, Teller
from easeml_core.files.urls import WEB

if TYPE_CHECKING:
    from io import BufferedRandom

    from easeml_core.files.remote_file import About, RemoteFile
    from easeml_core.files.urls import Address

ATTEMPTS = 5
REST_SECONDS = 0.5
_CHUNK = 1 << 20


def download(remote: RemoteFile, about: About, file: BufferedRandom, *, most: int, teller: Teller) -> None:
    """Bring an open file, which may hold the first bytes already, to the whole of a remote one."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _rest(remote, about, file, most=most, teller=teller)
        except PERMANENT:
            raise
        except OSError as error:
            if attempt == ATTEMPTS or error.errno in (errno.EFBIG, errno.ENOSPC, errno.ESTALE):
                raise
            time.sleep(REST_SECONDS * 2 ** (attempt - 1))
        else:
            return


def _rest(remote: RemoteFile, about: About, file: BufferedRandom, *, most: int, teller: Teller) -> None:
    start = _usable(file, about)
    bound = most if about.size is None else about.size
    if bound > most:
        raise OSError(errno.EFBIG, f"it has {bound / 1e6:,.1f} MB, at most {most / 1e6:,.0f} MB are allowed")
    if start == about.size:
        return
    with remote.opened(start, about) as (place, reader):
        if place not in (0, start):
            message = "the server gives another range than was asked for"
            raise OSError(message)
        file.seek(place)
        file.truncate()
        while chunk := reader.read(_CHUNK):
            teller.fetched += len(chunk)
            place += len(chunk)
            if place > bound:
                raise OSError(errno.EFBIG, f"it is larger than {bound:,} bytes, which is what is allowed or was said")
            file.write(chunk)
            teller.tell(place)
    file.flush()
    if about.size is not None and place != about.size:
        message = f"it ended after {place:,} of {about.size:,} bytes"
        raise OSError(message)
    if remote.about() != about:
        file.truncate(0)
        raise OSError(errno.ESTALE, "it was changed while it was read")
    teller.tell(place, at_once=True)


def _usable(file: BufferedRandom, about: About) -> int:
    """How many bytes are there already that belong to this version."""
    there = file.seek(0, 2)
    if not about.version or about.size is None or there > about.size:
        file.truncate(0)
        return 0
    return there


def remote_file(address: Address, until: float = math.inf) -> RemoteFile:
    """The file at an address."""
    if address.protocol in WEB:
        from easeml_core.files.web_files import WebFile

        return WebFile(address, until)
    from easeml_core.files.object_stores import ObjectFile

    return ObjectFile(address)
