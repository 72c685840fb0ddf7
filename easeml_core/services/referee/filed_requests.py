"""What commands show that file a request and may wait for its answer."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from easeml_core.encoding import typed_record
from easeml_core.entities import GivenAnswer
from easeml_core.services.datasets.feed import FeedReceipt
from easeml_core.services.models.submission import Submitted
from easeml_core.services.referee.answers import RefreshedAnswer, VerdictAnswer
from easeml_core.services.referee.place_in_queue import QueuePlace
from easeml_core.services.registration.register import RegisteredStudy


@typed_record
class AskedGate:
    """A question to the gate; ``answer`` is left out where the command does not wait for it, and else ``place``."""

    study: str
    request_id: int
    request_key: str
    answer: VerdictAnswer | GivenAnswer | UnsetType = UNSET
    place: QueuePlace | UnsetType | None = UNSET


@typed_record
class JudgedSubmission(Submitted):
    """A model that was handed in, with the request to the gate and its answer; left out where there is none.

    ``place`` is the request's place in the queue, where the command does not wait.
    """

    request_id: int | UnsetType = UNSET
    answer: VerdictAnswer | GivenAnswer | UnsetType = UNSET
    place: QueuePlace | UnsetType | None = UNSET


@typed_record
class FedPairs(FeedReceipt):
    """Pairs that were fed, and the answer to the refresh; None where none was requested."""

    refresh: RefreshedAnswer | GivenAnswer | None


@typed_record
class Registration(RegisteredStudy):
    """A study that was registered, and the referee's answer; None where the command does not wait for it.

    Attributes:
        answer: The answer.
        place: The request's place in the queue where the command does not wait; else left out.
    """

    answer: GivenAnswer | None
    place: QueuePlace | UnsetType | None = UNSET
