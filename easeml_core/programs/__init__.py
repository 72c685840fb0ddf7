"""Declarative programs: the types of inputs and outputs, and the candidates that can be trained on them."""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
