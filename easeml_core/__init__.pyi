from . import client as client
from . import gate as gate
from . import meter as meter
from . import programs as programs
from . import selection as selection
from . import stats as stats
from .client.installation import Client as Client
from .client.installation import connect as connect
from .client.referee_request import RefereeRequest as RefereeRequest
from .client.study_client import StudyClient as StudyClient
from .config import GateConfig as GateConfig
from .config import MeterConfig as MeterConfig
from .config import SelectionConfig as SelectionConfig
from .config import TrainingConfig as TrainingConfig
from .errors import EasemlError as EasemlError
from .selection.simulate.compare import simulate as simulate
from .services.models.submission import submit_model as submit_model
from .services.referee.requests import answer_of as answer_of
from .services.referee.requests import file_gate_request as file_gate_request
from .services.referee.requests import file_meter_request as file_meter_request
from .services.referee.requests import file_promotion as file_promotion
from .services.registration.register import register_study as register_study
from .services.selection.scheduler import suggest_trials as suggest_trials
from .services.trials.execution import run_trial as run_trial
from .store.artifacts.local import ArtifactStore as ArtifactStore
from .store.database import Store as Store

__version__: str
