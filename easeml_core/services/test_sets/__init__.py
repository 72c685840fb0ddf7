"""Sealed test sets: planning, upload, life cycle, release, and the ledger of their use."""
