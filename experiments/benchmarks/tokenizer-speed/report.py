"""The tables and the headline figures of tokenizer-speed."""

from __future__ import annotations

from experiments.results import Row, table

REQUIRED = {
    "speedup_vs_miditok_remi": 10.0,
    "speedup_velocity_vs_miditok_remi": 4.0,
    "decode_speedup_vs_miditok_remi": 4.0,
    "decode_speedup_velocity_vs_miditok_remi": 4.0,
}
MAXIMUM = {
    "codebook_seconds": (60.0, "codebook from 4 million cells: s"),
    "codebook_peak_gib": (2.0, "… peak GiB"),
}
RATIOS = {
    "speedup_vs_miditok_remi": ("remi_base encode", "base encode"),
    "speedup_velocity_vs_miditok_remi": ("remi_velocity encode", "velocity encode"),
    "decode_speedup_vs_miditok_remi": ("remi_base decode", "base decode"),
    "decode_speedup_velocity_vs_miditok_remi": ("remi_velocity decode", "velocity decode"),
}


def by_key(rows: list[Row], key: str) -> dict[str, Row]:
    return {row[key]: row for row in rows if key in row}


def headlines(rows: list[Row]) -> dict[str, float]:
    """MidiTok's median time over pianolm's, also without Python's garbage collector, and the codebook's fit."""
    sides, fit = by_key(rows, "side"), by_key(rows, "fit")["codebook"]

    def ratio(theirs: str, ours: str, ending: str) -> float:
        pair = (sides[f"{name}{ending}"]["seconds"] for name in (f"miditok {theirs}", f"pianolm {ours}"))
        return round(next(pair) / next(pair), 2)

    return {
        **{name: ratio(*pair, "") for name, pair in RATIOS.items()},
        **{f"{name}_gc_off": ratio(*pair, " gc off") for name, pair in RATIOS.items()},
        "codebook_seconds": round(fit["seconds"], 2),
        "codebook_peak_gib": round(fit["peak_gib"], 3),
    }


def tables(rows: list[Row]) -> dict[str, list[str]]:
    found = headlines(rows)
    checks = [
        [name, f"{found[name]:.1f} × ({found[f'{name}_gc_off']:.1f} ×)", f"≥ {least:g} ×"]
        for name, least in REQUIRED.items()
    ]
    checks += [[label, f"{found[name]:.2f}", f"< {most:g}"] for name, (most, label) in MAXIMUM.items()]
    sides = [
        [
            *(name, f"{row['notes_per_second']:,}"),
            f"{row['seconds']:.2f} ({row['seconds_min']:.2f}–{row['seconds_max']:.2f})",
            f"{row['passes']}",
        ]
        for name, row in by_key(rows, "side").items()
    ]
    steps = [[name, f"{row['milliseconds_per_file']:.2f}"] for name, row in by_key(rows, "step").items()]
    return {
        "results": table(["", "measured (garbage collector off)", "required"], checks),
        "sides": table(["side", "notes per second", "seconds: median (min–max)", "passes"], sides),
        "steps": [*table(["step inside pianolm", "ms per file"], steps), "", settings(rows)],
    }


def settings(rows: list[Row]) -> str:
    found, fit = next(row["settings"] for row in rows if "settings" in row), by_key(rows, "fit")["codebook"]
    written = ", ".join(f"{row['notes_written']:,}" for row in rows if "notes_written" in row)
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['files']} performances, {found['notes']:,} notes; notes in the files written back: {written}. "
        f"Codebook: {fit['cells_as_played']:,} of {fit['cells']:,} cells as played, "
        f"{fit['distinct_cells']:,} distinct, {fit['codes_per_cell']:.4f} codes per cell by "
        f"`{fit['method']}`. Velocity codec `{found['velocity_codec']}`. {versions}."
    )
