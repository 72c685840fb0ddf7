"""Ease.ml inside Apache Airflow: operators, sensors, a decorator, a trigger, a hook and one page.

DAG authors import from ``easeml_airflow.operators``, ``.sensors`` and ``.decorators``, and need to know no file below.
This layer is thin: arguments go in, one call of ``easeml_core.services`` is made, its facts come out as XCom, event or
page. Importing it has no effect, and brings in neither numpy nor a database driver.
"""
