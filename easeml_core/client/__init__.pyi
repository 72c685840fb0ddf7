from .installation import Client as Client
from .installation import connect as connect
from .referee_request import RefereeRequest as RefereeRequest
from .study_client import StudyClient as StudyClient
