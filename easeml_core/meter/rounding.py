"""Figures for sentences, rounded to the side on which the sentence stays true; all as the decimals that floats show."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

_DIGITS = 6


def decimal_of(value: float) -> Decimal:
    """The shortest decimal that the float stands for: what the user meant by it, and never 1 for what is below 1."""
    return Decimal(repr(float(value)))


def at_least(value: float) -> str:
    """The figure, or the next smaller one of 6 digits: for what is promised to be at least so much.

    Example:
        >>> at_least(0.1), at_least(1 - 1e-9)
        ('0.1', '0.999999')
    """
    return _text(value, ROUND_FLOOR)


def at_most(value: float) -> str:
    """The figure, or the next larger one of 6 digits: for what is promised to be at most so much.

    Example:
        >>> at_most(0.3), at_most(0.12345601)
        ('0.3', '0.123457')
    """
    return _text(value, ROUND_CEILING)


def _text(value: float, rounding: str) -> str:
    return f"{float(Context(prec=_DIGITS, rounding=rounding).plus(decimal_of(value))):g}"
