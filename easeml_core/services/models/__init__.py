"""Trained models: submission, promotion, inference, and DAG bundles."""
