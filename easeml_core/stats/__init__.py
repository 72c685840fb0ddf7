"""Confidence bounds, exact tests and sample sizes that gate and meter share."""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
