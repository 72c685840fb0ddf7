"""A method of the client for each action, made from the action's request."""

from __future__ import annotations

import inspect
import uuid
from typing import TYPE_CHECKING, Any

from easeml_core.actions.action import action_of, arguments_text, parameters_of, perform, read
from easeml_core.actions.studies import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from easeml_core.store.database import Store


class Actions:
    """Base of the client: ``client.register_study(tenant=..., study=..., source=...)`` and its like.

    Editors and type checkers read the methods in a stub that ``scripts/reference.py`` makes.
    """

    store: Store


def _method(action: type[Any]) -> Callable[..., Any]:
    """Return the method of an action, with the signature and the docstring of its request."""
    known = action_of(action)

    def method(self: Actions, *, request_key: str | None = None, **given: Any) -> Any:
        return perform(self.store, read(action, given), request_key=request_key or f"client/{uuid.uuid4()}")

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    key = inspect.Parameter("request_key", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    method.__signature__ = inspect.Signature([first, *parameters_of(action), key])  # type: ignore[attr-defined]  # read by inspect
    method.__name__, method.__qualname__ = known.method, f"{Actions.__name__}.{known.method}"
    rest = "request_key: Makes the call repeatable; None for a new one."
    method.__doc__ = f"{known.help}\n\n{arguments_text(action, rest)}"
    return method


for _action in ACTIONS:
    setattr(Actions, action_of(_action).method, _method(_action))
