"""Mutators of beat files: each takes the rows of an annotation file and returns the bytes of another file.

`SAME` holds those that leave the beats as they are, so that a reader must give the same grid; `OTHER` the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Random = np.random.Generator
Rows = Sequence[str]
Mutator = Callable[[Random, Rows], bytes]


def one_of(rng: Random, values: Sequence[Any]) -> Any:
    """A random value."""
    return values[int(rng.integers(len(values)))]


def text(rows: Rows, end: str = "\n") -> bytes:
    """The file of these rows."""
    return "".join(row + end for row in rows).encode()


def seconds(row: str) -> float:
    """The time of a row."""
    return float(row.split("\t")[0])


def at_time(row: str, time: object) -> str:
    """The row with another time."""
    return "\t".join([str(time), *row.split("\t")[1:]])


def with_times(rng: Random, rows: Rows, times: Sequence[object], count: int) -> bytes:
    """Rows whose times are replaced at random places."""
    changed = list(rows)
    for _ in range(count):
        place = int(rng.integers(len(changed)))
        changed[place] = at_time(changed[place], one_of(rng, times))
    return text(changed)


# Beats that stay the same


def windows_lines(rng: Random, rows: Rows) -> bytes:
    return text(rows, "\r\n")


def byte_order_mark(rng: Random, rows: Rows) -> bytes:
    return b"\xef\xbb\xbf" + text(rows)


def blank_lines(rng: Random, rows: Rows) -> bytes:
    changed = list(rows)
    for _ in range(5):
        changed.insert(int(rng.integers(len(changed) + 1)), one_of(rng, ["", "  ", "\t"]))
    return text(changed)


def padded_rows(rng: Random, rows: Rows) -> bytes:
    return text([row + one_of(rng, ["", " ", "  ", "\t"]) for row in rows])


def no_last_newline(rng: Random, rows: Rows) -> bytes:
    return text(rows)[:-1]


def other_digits(rng: Random, rows: Rows) -> bytes:
    """The same numbers in scientific notation, or with more zeros."""
    return text(
        [at_time(row, one_of(rng, ["{:.9e}", "{:+.12f}", "{:015.6f}"]).format(seconds(row))) for row in rows]
    )


# Anything else


def not_finite(rng: Random, rows: Rows) -> bytes:
    return with_times(rng, rows, ["nan", "NaN", "inf", "-inf", "1e999", "infinity"], int(rng.integers(1, 4)))


def huge(rng: Random, rows: Rows) -> bytes:
    values = ["1e300", "1e308", "-1e300", "1e12", "9" * 400, "1e9", "-1e6", "99999", "1e-320"]
    return with_times(rng, rows, values, int(rng.integers(1, 3)))


def negative(rng: Random, rows: Rows) -> bytes:
    shift = one_of(rng, [0.5, 10.0, 3600.0, 1e7])
    return text([at_time(row, seconds(row) - shift) for row in rows])


def unordered(rng: Random, rows: Rows) -> bytes:
    return text([rows[i] for i in rng.permutation(len(rows))])


def other_unit(rng: Random, rows: Rows) -> bytes:
    unit = one_of(rng, [1e3, 1e6, 44_100, 1 / 60, 480, 1e-3])
    return text([at_time(row, seconds(row) * unit) for row in rows])


def duplicated(rng: Random, rows: Rows) -> bytes:
    return text([row for row in rows for _ in range(int(rng.integers(1, 5)))])


def close_beats(rng: Random, rows: Rows) -> bytes:
    return text([at_time(row, seconds(row) + shift) for row in rows for shift in (0, 1e-7, 0.05)])


def few_beats(rng: Random, rows: Rows) -> bytes:
    start = int(rng.integers(len(rows)))
    return text(rows[start : start + int(rng.integers(4))])


def gaps(rng: Random, rows: Rows) -> bytes:
    return text([row for row in rows if rng.random() < 0.3])


def labels(rng: Random, rows: Rows) -> bytes:
    """Labels of other annotations; with one of them in a row, all must be as announced."""
    other = one_of(rng, ["x", "C:maj", "1", "0", "", "db,4/4", "bR,", "b,\0", "é", "1\t0\t1", "nan"])
    return text([row if rng.random() < 0.8 else f"{seconds(row)}\t{seconds(row)}\t{other}" for row in rows])


def numbers(rng: Random, rows: Rows) -> bytes:
    """Times that some readers of numbers accept and no annotation has."""
    values = ["1_0", "\u0661\u0662", "0x10", "1,5", "1.5.2", "12s", "0:12", "--1", "1e", "\uff11"]
    return with_times(rng, rows, values, int(rng.integers(1, 4)))


def separators(rng: Random, rows: Rows) -> bytes:
    other = one_of(rng, [",", ";", "\v", "\x1c", "\u2028", "\0", "\u00a0", " "])
    return text([row.replace("\t", other) for row in rows])


def header_row(rng: Random, rows: Rows) -> bytes:
    return text([one_of(rng, ["time\ttime\tlabel", "# beats", "seconds", "\0"]), *rows])


def other_encoding(rng: Random, rows: Rows) -> bytes:
    rows = [*rows[:-1], rows[-1] + " Schläge"]
    return "".join(row + "\n" for row in rows).encode(
        one_of(rng, ["latin-1", "utf-16", "utf-16-le", "utf-7"])
    )


def flipped_bytes(rng: Random, rows: Rows) -> bytes:
    content = bytearray(text(rows))
    for _ in range(int(rng.integers(1, 10))):
        content[int(rng.integers(len(content)))] = rng.integers(256)
    return bytes(content)


def truncated(rng: Random, rows: Rows) -> bytes:
    content = text(rows)
    return content[: int(rng.integers(len(content)))]


def other_content(rng: Random, rows: Rows) -> bytes:
    content = text(rows)
    long_line = ("1.5\t" * 20_000).encode()
    many = b"".join(b"%.3f\n" % (0.25 * i) for i in range(120_000))
    return one_of(
        rng, [b"", b"\n\n", rng.bytes(400), bytes(300), b"MThd" + content, content * 3, long_line, many]
    )


def _named(*mutators: Mutator) -> dict[str, Mutator]:
    return {mutator.__name__.replace("_", " "): mutator for mutator in mutators}


SAME = _named(windows_lines, byte_order_mark, blank_lines, padded_rows, no_last_newline, other_digits)
OTHER = _named(
    not_finite,
    huge,
    negative,
    unordered,
    other_unit,
    duplicated,
    close_beats,
    few_beats,
    gaps,
    labels,
    numbers,
    separators,
    header_row,
    other_encoding,
    flipped_bytes,
    truncated,
    other_content,
)
