"""The overfitting meter, Ease.ml/meter: how far a submission's validation loss is from its loss on unseen data."""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
