"""The use cases: one function is one transaction and one decision, and its request key makes it repeatable.

Functions return plain JSON. They speak no SQL (``easeml_core.store`` does) and know no Airflow.
"""
