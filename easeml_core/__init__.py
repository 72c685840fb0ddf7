"""The three systems behind the plugin, without Airflow: selection (Ease.ml), gate (Ease.ml/ci), meter (Ease.ml/meter).

Imports go down only: ``cli`` > ``services`` > ``store | training`` > ``selection | gate | meter`` > ``stats | files`` >
``formats | settings`` > ``entities`` > ``errors``. Every public name is imported on first use, so importing this
package imports none of its modules but ``lazy``.
"""

from easeml_core.lazy import attach_stub

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
