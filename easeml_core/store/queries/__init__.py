"""Queries across tables, for reports."""
