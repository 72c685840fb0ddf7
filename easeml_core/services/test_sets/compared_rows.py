"""Rows as they are compared with the registry: an identity and tokens for each, of a bounded number of columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from easeml_core.data import mapped
from easeml_core.data.rows.cells import Cells, cells_of_table, is_regular, name_tokens, row_ids, tokens_of
from easeml_core.data.rows.matching import Rows
from easeml_core.store.tables import row_registry as registry

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from easeml_core.data.table import RawTable

_MOST_COMPARED = 512
"""Columns of a new table that are compared."""

_LEAST_OF_MAPPED, _MOST_TOKENS = 4, 4_000_000
"""Columns of a mapped table that are compared and registered at least; cells of it, where that are more columns."""

_MOST_KEPT = 64
"""Columns of a table that are registered, drawn by the key of their names."""


@dataclass(frozen=True, slots=True, eq=False)
class NewRows:
    """Rows to compare.

    Attributes:
        ids: Of each row, 16 bytes: equal for rows of the same cells.
        rows: Their tokens.
        kept: Places of the columns that are registered with them.
    """

    ids: list[bytes]
    rows: Rows
    kept: NDArray[np.intp]

    def at(self, places: NDArray[np.intp]) -> NewRows:
        """Return these of the rows."""
        return NewRows(
            [self.ids[i] for i in places.tolist()], Rows(self.rows.tokens[places], self.rows.names), self.kept
        )


def new_rows(tx: Connection, cells: Cells) -> NewRows:
    """Return the tokens of rows to compare."""
    key = registry.registry_key(tx)
    names = name_tokens(cells, key)
    compared = np.sort(np.argsort(names, kind="stable")[:_MOST_COMPARED])
    chosen = Cells(
        tuple(cells.names[place] for place in compared.tolist()),
        tuple(cells.columns[place] for place in compared.tolist()),
    )
    tokens, names = tokens_of(chosen, key), names[compared]
    tells = [i for i, column in enumerate(chosen.columns) if _tells(tokens[:, i]) and not is_regular(column)]
    kept = np.array(sorted(sorted(tells, key=lambda i: int(names[i]))[:_MOST_KEPT]), dtype=np.intp)
    return NewRows(row_ids(tokens, key), Rows(tokens, names), kept)


def new_rows_of_table(tx: Connection, table: RawTable) -> NewRows:
    """Return the tokens of a table's rows: of ``new_rows`` its cells, of a mapped table some of its columns.

    A mapped table has numbers alone. As many of its columns are compared as give ``_MOST_TOKENS`` cells, at least
    ``_LEAST_OF_MAPPED``, first by the key of their names as in any table. Rows are equal if all of their numbers are,
    in their order, compared or not. So a copy of the rows is known whatever its columns are called, and one whose
    columns have other names and another order may not be (docs/security.md).
    """
    if not mapped.is_mapped(table.inputs):
        return new_rows(tx, cells_of_table(table))
    key = registry.registry_key(tx)
    names = name_tokens(Cells(table.feature_names, ()), key)
    by_key = np.argsort(names, kind="stable")
    most = min(_MOST_COMPARED, max(_LEAST_OF_MAPPED, _MOST_TOKENS // len(table.inputs)))
    compared = np.sort(by_key[:most])
    columns = mapped.columns_at(table.inputs, compared)
    tokens = tokens_of(Cells(tuple(table.feature_names[i] for i in compared.tolist()), tuple(columns.T)), key)
    names = names[compared]
    tells = [i for i in range(len(compared)) if _tells(tokens[:, i]) and not is_regular(columns[:, i])]
    kept = np.array(sorted(sorted(tells, key=lambda i: int(names[i]))[:_MOST_KEPT]), dtype=np.intp)
    ids = [one.tobytes() for one in mapped.fingerprints(table.inputs, key)]
    return NewRows(ids, Rows(tokens, names), kept)


def _tells(column: NDArray[np.uint64]) -> bool:
    return bool(len(column)) and bool((column != column[0]).any())
