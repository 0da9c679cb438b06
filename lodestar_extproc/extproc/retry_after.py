"""Retry-After: how long a refusal asks to wait."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_MAX_DIGITS = 9
"""Thirty years of seconds: a longer number is garbage."""


def retry_after_s(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds, from a number of them or from a date (RFC 9110, section 10.2.3); None for neither.

    >>> retry_after_s("2"), retry_after_s("soon")
    (2.0, None)
    """
    text = (value or "").strip()
    number, _, fraction = text.partition(".")
    if number.isascii() and number.isdigit() and len(number) <= _MAX_DIGITS:
        return float(f"{number}.{fraction if fraction.isascii() and fraction.isdigit() else 0}")
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (datetime.now(UTC) if now is None else now)).total_seconds())
