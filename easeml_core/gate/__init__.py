"""The gate, Ease.ml/ci: condition language, planner, counts and verdicts.

Conditions are parsed where a DAG is parsed, so every name is imported on first use.
"""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
