"""Tables as CSV that a spreadsheet can open safely."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

__all__ = ["csv_bytes"]


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """CSV in which no text is a formula (OWASP, CSV injection) and every name can be encoded."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    for row in rows:
        writer.writerow(
            "'" + cell if isinstance(cell, str) and cell.startswith(tuple("=+-@\t\r\n")) else cell
            for cell in row
        )
    return text.getvalue().encode("utf-8", "backslashreplace")
