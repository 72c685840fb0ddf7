"""The three systems behind the plugin, without Airflow: selection (Ease.ml), gate (Ease.ml/ci), meter (Ease.ml/meter).

Arrows point down only: ``cli`` > ``services`` > ``store | training`` > ``selection | gate | meter`` > ``stats`` >
``config`` > ``entities`` > ``errors``. Importing this package has no effect and costs nothing.
"""

__version__ = "0.1.0"
