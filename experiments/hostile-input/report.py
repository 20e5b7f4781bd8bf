"""The tables and the headline figures of hostile-input."""

from __future__ import annotations

from collections import Counter

from experiments.results import Row, table

_MAY = {
    ("midi", "same"): "MIDI, music unchanged",
    ("midi", "lossy"): "MIDI, something cut off",
    ("midi", "other"): "MIDI, anything else",
    ("beats", "same"): "beats, unchanged",
    ("beats", "other"): "beats, anything else",
}
_ONE_BY_ONE, _BULK = "one by one", "stage=prepare"


def _of(rows: list[Row], part: str) -> list[Row]:
    return [row for row in rows if row["part"] == part]


def headlines(rows: list[Row]) -> dict[str, float]:
    mutants, damage = _of(rows, "mutants"), _of(rows, "damage")
    kinds, bulk = ([row for row in mutants if ("family" in row) is one] for one in (True, False))
    kills, disks = _of(rows, "kills"), _of(rows, "disks")
    writing, mistakes = _of(rows, "writing"), _of(rows, "mistakes")
    return {
        "mutants": sum(row["files"] for row in kinds),
        "mutants_wrong": sum(row["wrong"] for row in kinds),
        "unaccounted": sum(row["unaccounted"] for row in bulk),
        "tracebacks": sum(row["tracebacks"] for row in bulk),
        "slowest_sec": max((row["slowest_sec"] for row in kinds), default=0),
        "damaged": sum(row["cases"] for row in damage),
        "damaged_wrong": sum(row["wrong"] for row in damage),
        "kills": len(kills),
        "kills_wrong": sum(bool(row["problem"]) for row in kills),
        "full_disks": len(disks),
        "full_disks_wrong": sum(bool(row["problem"]) for row in disks),
        "written": sum(row["pieces"] for row in writing),
        "written_differ": sum(row["differ"] for row in writing),
        "mistakes": len(mistakes),
        "mistakes_wrong": sum(bool(row["problem"]) for row in mistakes),
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    return {
        "mutants": _mutants(_of(rows, "mutants")),
        "rest": _rest(rows),
        "cases": _cases(_of(rows, "cases")),
        "mistakes": _mistakes(_of(rows, "mistakes")),
    }


def _mutants(rows: list[Row]) -> list[str]:
    lines = []
    for (family, may), name in _MAY.items():
        group = [row for row in rows if (row.get("family"), row.get("may")) == (family, may)]
        counts = [sum(row[key] for row in group) for key in ("files", "used", "rejected", "wrong")]
        slowest = max((row["slowest_sec"] for row in group), default=0)
        lines.append([name, f"{len(group)}", *(f"{count:,}" for count in counts), f"{slowest:.2f}"])
    for row in rows:
        if row["kind"] == _BULK:
            wrong = row["unaccounted"] + row["disagreements"] + row["tracebacks"]
            counts = [f"{row[key]:,}" for key in ("files", "used", "rejected")]
            lines.append(["all of them, `stage=prepare`", "", *counts, f"{wrong}", ""])
    return table(["mutants", "kinds", "files", "used", "rejected", "wrong", "slowest, s"], lines)


def _rest(rows: list[Row]) -> list[str]:
    lines = [
        _damage_line(place, rows) for place in dict.fromkeys(row["place"] for row in _of(rows, "damage"))
    ]
    kills = _of(rows, "kills")
    for phase in dict.fromkeys(row["phase"] for row in kills):
        group = [row for row in kills if row["phase"] == phase]
        counts = Counter(row["signum"] for row in group)
        named = ", ".join(f"{count} {signum}" for signum, count in counts.items())
        wrong = sum(bool(row["problem"]) for row in group)
        lines.append(
            [f"killed: {phase}", f"{len(group)}", f"{named}; then the files of an unbroken run", f"{wrong}"]
        )
    for row in _of(rows, "disks"):
        said = row["said"].removeprefix("pianolm: ")
        lines.append([f"full disk: {row['place']} ({row['by']})", "1", said, f"{bool(row['problem']):d}"])
    for row in _of(rows, "writing"):
        name = f"written and read twice: {row['set']}"
        lines.append([name, f"{row['pieces']:,}", f"{row['notes']:,} notes", f"{row['differ']}"])
    return table(["what", "times", "outcome", "wrong"], lines)


def _damage_line(place: str, rows: list[Row]) -> list[str]:
    group = [row for row in _of(rows, "damage") if row["place"] == place]
    counts = {key: sum(row[key] for row in group) for key in ("cases", "told", "same", "wrong")}
    slowest = max(row["slowest_sec"] for row in group)
    how = (
        f", at most {slowest:.2f} s of processor time" if slowest else ", and built again with the same files"
    )
    same = f"; {counts['same']} gave the same music" if counts["same"] else ""
    outcome = f"{counts['told']} told in a sentence{how}{same}"
    return [f"damaged: {place}", f"{counts['cases']}", outcome, f"{counts['wrong']}"]


def _cases(rows: list[Row]) -> list[str]:
    keys = ("file", "what", "right", "now")
    return table(["file", "what it is", "right", "now"], [[row[key] for key in keys] for row in rows])


def _mistakes(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows:
        said = [line.replace("|", "/") for line in row["said"].splitlines()]
        lines += [
            f"{row['mistake'][0].upper()}{row['mistake'][1:]}:",
            "```console",
            f"$ python -m pianolm.run {row['command']}",
            *said,
            "```",
        ]
    return lines
