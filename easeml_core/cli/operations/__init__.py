"""Commands for operators: the database, checks of an installation, the example DAGs, the cache, MLflow."""
