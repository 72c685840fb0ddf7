from .alerts import NewTestSetSensor as NewTestSetSensor
from .alerts import OverfittingMeterSensor as OverfittingMeterSensor
from .states import TestSetReadySensor as TestSetReadySensor
from .states import TrialFinishedSensor as TrialFinishedSensor
