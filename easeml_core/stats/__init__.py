"""Bounds and exact tests that gate and meter share; nothing here knows what they are used for."""
