"""Model selection, Ease.ml: which tenant and which candidate get the next device.

Everything here is a function of the observations: no clock, no database, no training.
"""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
