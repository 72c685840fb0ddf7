"""An artifact store for tests that look at a file and do not care whose it is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from easeml_core.errors import ArtifactError
from easeml_core.store.artifacts.local import ArtifactStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader
    from pathlib import Path


class AnyTenant(ArtifactStore):
    """Reads what lies in the root or under any tenant. What ``of_tenant`` gives the product is as strict as ever."""

    @contextlib.contextmanager
    def _opened(self, reference: str) -> Iterator[tuple[BufferedReader, Path]]:
        with contextlib.ExitStack() as held:
            for tenant in self.tenants():
                with contextlib.suppress(ArtifactError):
                    found = held.enter_context(self.of_tenant(tenant)._opened(reference))
                    break
            else:
                found = held.enter_context(super()._opened(reference))
            yield found
