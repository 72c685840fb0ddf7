"""An installation of Ease.ml from Python: ``easeml_core.connect(url)`` and the studies behind it.

A client has the rights of the login in its address and no others: row-level security keeps tenants apart, and sealed
labels, test qualities and the gate's estimates are not readable for it.
"""

from easeml_core.lazy import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
