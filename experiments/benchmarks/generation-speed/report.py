"""The tables and the headline figures of generation-speed."""

from __future__ import annotations

from experiments.results import Row, table

SIZES = ("tiny", "box", "small")
BATCHES = (1, 16)
REQUIRED = {
    "speedup_tiny_batch1": 5,
    "speedup_box_batch1": 4,
    "speedup_box_batch16": 2,
    "speedup_small_batch1": 3,
}
OURS, THEIRS = "pianolm", "transformers generate"


def settings(rows: list[Row]) -> list[Row]:
    """What was measured, one row per run: some sizes with one number of threads."""
    return [row for row in rows if row["side"] == "settings"]


def sizes_of(row: Row) -> set[str]:
    """The sizes that a row speaks of."""
    return set(row["sizes"] if row["side"] == "settings" else [row["size"]])


def settings_of(rows: list[Row], size: str) -> Row:
    """The settings with which a size was measured."""
    return next(run for run in settings(rows) if size in run["sizes"])


def speeds(rows: list[Row], size: str, batch: int, side: str) -> list[Row]:
    """The measurements of one side, one row per number of threads."""
    return [row for row in rows if (row.get("size"), row.get("batch"), row["side"]) == (size, batch, side)]


def headlines(rows: list[Row]) -> dict[str, float]:
    """A speedup is the lower of those with one and with two threads; other figures are of the faster run."""

    def tokens(size: str, batch: int, side: str) -> list[float]:
        return [row["tokens_per_second"] for row in speeds(rows, size, batch, side)]

    cases = [(size, batch) for size in SIZES for batch in BATCHES]
    speedups = {
        f"speedup_{size}_batch{batch}": round(
            min(a / b for a, b in zip(tokens(size, batch, OURS), tokens(size, batch, THEIRS), strict=True)), 2
        )
        for size, batch in cases
    }
    return {
        **speedups,
        "throughput_tiny_batch16": round(max(tokens("tiny", 16, OURS)), 1),
        **{
            f"beats_per_second_{size}_batch{batch}": round(
                max(tokens(size, batch, OURS)) / settings_of(rows, size)["tokens_per_beat"], 1
            )
            for size, batch in cases
        },
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    found = headlines(rows)
    threads = sorted({run["threads"] for run in settings(rows)})
    checks = [[name, f"{found[name]} ×", f"≥ {least} ×"] for name, least in REQUIRED.items()]
    sides = {(row["size"], row["batch"], row["side"]): row for row in rows if "tokens_per_second" in row}
    lines = []
    for row in sorted(sides.values(), key=lambda row: SIZES.index(row["size"])):
        of_side = speeds(rows, row["size"], row["batch"], row["side"])
        run = settings_of(rows, row["size"])
        beats = max(one["tokens_per_second"] for one in of_side) / run["tokens_per_beat"]
        by_threads = {
            one["threads"]: f"{one['tokens_per_second']:,.0f} ({one['least']:,.0f}–{one['most']:,.0f})"
            for one in of_side
        }
        shown = [by_threads.get(number, "–") for number in threads]
        real_time = beats / run["beats_per_second_of_music"]
        lines.append(
            [f"{row['size']}, {row['batch']}", row["side"], *shown, f"{beats:,.1f}", f"{real_time:,.1f}"]
        )
    head = ["model, pieces at once", "side"]
    head += [f"tokens per second, threads: {number}" for number in threads]
    return {
        "results": table(["lower ratio of those with one and two threads", "measured", "required"], checks),
        "sides": [*table([*head, "beats per second", "times real time"], lines), "", conditions(rows)],
    }


def conditions(rows: list[Row]) -> str:
    seconds = {row["size"]: row["seconds"] for row in rows if row["side"] == "first beat"}
    first = [f"{size} {1000 * value:.0f} ms" for size, value in seconds.items()]
    lines = [f"Medians (min–max). From the call to the first beat: {', '.join(first)}.", ""]
    lines += [
        f"* {', '.join(run['sizes'])}, threads: {run['threads']}: load of the machine {run['load_at_start']} at the "
        f"start (0 is idle); a prompt of {run['prompt_tokens']} tokens and {run['new_tokens']} new ones, a quarter of "
        f"them for 16 pieces; music of {run['tokens_per_beat']:.1f} tokens per beat, "
        f"{60 * run['beats_per_second_of_music']:.0f} beats per minute"
        for run in settings(rows)
    ]
    versions = ", ".join(f"{name} {number}" for name, number in settings(rows)[-1]["versions"].items())
    return "\n".join([*lines, "", f"{versions}."])
