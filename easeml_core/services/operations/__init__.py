"""Operation of an installation: checks, backup, audit, notifications, MLflow."""
