"""Rows of a query as frozen dataclasses: names, enums, and what does not fit."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import pytest

from easeml_core.errors import InvalidInputError
from easeml_core.formats.encoding import typed_record
from easeml_core.store.rows import record, records
from easeml_core.store.tables import outbox, trials
from easeml_core.store.tables.trials import CurvePoint


class Fruit(StrEnum):
    FIG = "FIG"
    PEAR = "PEAR"


@typed_record
class Basket:
    fruit: Fruit
    other: Fruit | None
    number: int = 7


def test_columns_become_fields_whatever_their_order(database: Any) -> None:
    with database.worker.begin() as tx:
        found = records(
            tx, Basket, "SELECT NULL AS other, x AS fruit, 2 AS number FROM unnest(:names) x", names=["FIG", "PEAR"]
        )
        assert found == [Basket(Fruit.FIG, None, 2), Basket(Fruit.PEAR, None, 2)]
        assert type(found[0].fruit) is Fruit
        assert record(tx, Basket, "SELECT 'FIG' AS fruit, 'PEAR' AS other") == Basket(Fruit.FIG, Fruit.PEAR, 7)
        assert record(tx, Basket, "SELECT 'FIG' AS fruit, NULL AS other WHERE false") is None


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("SELECT 'FIG' AS fruit, NULL AS other, 1 AS size", TypeError),
        ("SELECT 'FIG' AS fruit", TypeError),
        ("SELECT 'PLUM' AS fruit, NULL AS other", ValueError),
    ],
)
def test_a_query_that_does_not_fit_its_class_is_an_error(database: Any, query: str, error: type[Exception]) -> None:
    with database.worker.begin() as tx, pytest.raises(error):
        record(tx, Basket, query)


def test_a_number_that_json_lacks_is_refused_before_it_is_written_as_null() -> None:
    """Neither call reaches its transaction."""
    nowhere: Any = None
    with pytest.raises(InvalidInputError, match="only finite numbers"):
        outbox.hold(nowhere, request_id=1, refused=False, message="", facts={"level": math.nan}, leaves_at=None)
    with pytest.raises(InvalidInputError, match="only finite numbers"):
        trials.add_points(nowhere, 1, [CurvePoint(step=1, of=2, quality=None, loss=math.inf, seconds=0.5)])
