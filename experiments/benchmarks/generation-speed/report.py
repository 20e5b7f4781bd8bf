"""The tables and the headline figures of generation-speed."""

from __future__ import annotations

from experiments.results import Row, table

SIZES = ("tiny", "small")
BATCHES = (1, 16)
REQUIRED = {"speedup_tiny_batch1": 5, "speedup_small_batch1": 3}
OURS, THEIRS = "pianolm", "transformers generate"


def settings(rows: list[Row]) -> list[Row]:
    """What was measured, one row per number of threads."""
    return [row for row in rows if row["side"] == "settings"]


def speeds(rows: list[Row], size: str, batch: int, side: str) -> list[Row]:
    """The measurements of one side, one row per number of threads."""
    return [row for row in rows if (row.get("size"), row.get("batch"), row["side"]) == (size, batch, side)]


def headlines(rows: list[Row]) -> dict[str, float]:
    """A speedup is the lower of those with one and with two threads; other figures are of the faster run."""

    def tokens(size: str, batch: int, side: str) -> list[float]:
        return [row["tokens_per_second"] for row in speeds(rows, size, batch, side)]

    cases = [(size, batch) for size in SIZES for batch in BATCHES]
    tokens_per_beat = settings(rows)[0]["tokens_per_beat"]
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
                max(tokens(size, batch, OURS)) / tokens_per_beat, 1
            )
            for size, batch in cases
        },
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    found, runs = headlines(rows), settings(rows)
    last = runs[-1]
    checks = [[name, f"{found[name]} ×", f"≥ {least} ×"] for name, least in REQUIRED.items()]
    measured = [row for row in rows if row["threads"] == last["threads"] and "tokens_per_second" in row]
    lines = []
    for row in measured:
        of_side = speeds(rows, row["size"], row["batch"], row["side"])
        beats = max(one["tokens_per_second"] for one in of_side) / last["tokens_per_beat"]
        shown = [
            f"{one['tokens_per_second']:,.0f} ({one['least']:,.0f}–{one['most']:,.0f})" for one in of_side
        ]
        real_time = beats / last["beats_per_second_of_music"]
        lines.append(
            [f"{row['size']}, {row['batch']}", row["side"], *shown, f"{beats:,.1f}", f"{real_time:,.1f}"]
        )
    head = ["model, pieces at once", "side"]
    head += [f"tokens per second, threads: {run['threads']}" for run in runs]
    return {
        "results": table(["lower ratio of those with one and two threads", "measured", "required"], checks),
        "sides": [*table([*head, "beats per second", "times real time"], lines), "", conditions(rows)],
    }


def conditions(rows: list[Row]) -> str:
    runs = settings(rows)
    last = runs[-1]
    first = [
        f"{row['size']} {1000 * row['seconds']:.0f} ms"
        for row in rows
        if row["side"] == "first beat" and row["threads"] == last["threads"]
    ]
    versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
    return (
        f"Medians (min–max). From the call to the first beat: {', '.join(first)}. Load of the machine at the start: "
        f"{', '.join(str(run['load_at_start']) for run in runs)} (0 is idle). A prompt of {last['prompt_tokens']} "
        f"tokens and {last['new_tokens']} new ones, a quarter of them for 16 pieces. Music of "
        f"{last['tokens_per_beat']:.1f} tokens per beat, {60 * last['beats_per_second_of_music']:.0f} beats per "
        f"minute. {versions}."
    )
