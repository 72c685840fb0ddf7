"""Alembic migrations of the store; run by ``easeml db upgrade``."""
