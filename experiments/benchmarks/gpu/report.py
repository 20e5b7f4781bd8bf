"""The table and the headline figures of benchmarks/gpu."""

from __future__ import annotations

from experiments.results import Row, table


def headlines(rows: list[Row]) -> dict[str, float]:
    """Tokens per second, and the share of the GPU's peak where a GPU was measured; by kind of run."""
    found = {f"{row['run']}_tokens_per_second": row["tokens_per_second"] for row in rows}
    shares = {f"{row['run']}_share_of_peak": row["share_of_peak"] for row in rows if not row["dry"]}
    return {**found, **shares, "dry": int(any(row["dry"] for row in rows))}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = [
        [
            row["run"],
            row["device"] + (" (dry run)" if row["dry"] else ""),
            f"{row['parameters']:,}",
            str(row["steps"]),
            f"{row['batch_tokens']:,} × {row['context']:,}",
            f"{row['tokens_per_second']:,.0f}",
            "–" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.1f} %",
        ]
        for row in rows
    ]
    head = ["network", "device", "parameters", "steps", "batch × context", "tokens/s", "share of peak"]
    return {"results": table(head, lines)}
