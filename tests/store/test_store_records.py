"""Rows of a query as frozen dataclasses: names, enums, and what does not fit."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from easeml_core.encoding import typed_record
from easeml_core.store.rows import record, records


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
