"""The notifiers for DAG authors; each is imported on first use, so that parsing a DAG stays cheap."""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
