"""The whole product on one machine: embedded PostgreSQL, referee, real Airflow; started, watched and stopped together.

This is a script's business, not the product's: nothing here is installed, and the product imports none of it.
"""
