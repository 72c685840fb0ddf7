from .installation import Client as Client
from .installation import connect as connect
from .study_client import RefereeRequest as RefereeRequest
from .study_client import StudyClient as StudyClient
