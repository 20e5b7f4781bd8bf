"""The tables and the headline figures of training-speed."""

from __future__ import annotations

from experiments.results import Row, table

HEADLINES = ("step_time_over_bare_loop", "tokens_per_second_before", "tokens_per_second_after")
OTHER = "everything else"
OPERATIONS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "attention": ("aten::_scaled_dot_product",),
    "softmax of the loss": ("aten::_log_softmax", "aten::exp", "aten::scatter", "aten::gather"),
    "AdamW and clipping": (
        "Optimizer.step",
        "aten::_foreach",
        "aten::lerp",
        "aten::addc",
        "aten::linalg_vector_norm",
    ),
}
"""Kinds of operation by the beginnings of their names in torch's profiler."""


def headlines(rows: list[Row]) -> dict[str, float]:
    """Of the first run: its time over the bare loop's; tokens per second of the naive loop and of the stage."""
    return {key: rows[0][key] for key in HEADLINES}


def tables(rows: list[Row]) -> dict[str, list[str]]:
    lines = []
    optimizers = [row for row in rows if "optimizer_sec" in row]
    losses = [row for row in rows if "loss_sec" in row]
    variants = [row for row in rows if "step_sec" in row]
    rows = [row for row in rows if "profile" in row]
    for row in rows:
        speeds = [row[f"tokens_per_second_{when}"] for when in ("before", "bare", "after")]
        low, high = row["quartiles_of_the_ratio"]
        ratio = f"{row['step_time_over_bare_loop']:.3f} × ({low:.3f}–{high:.3f}, {row['pairs']} pairs)"
        lines.append(
            [row["run"], *(f"{speed:,.0f}" for speed in speeds), f"{speeds[2] / speeds[0]:.2f} ×", ratio]
        )
    head = [
        "run",
        "naive: tokens/s",
        "bare",
        "stage",
        "stage over naive",
        "step time over bare loop (quartiles)",
    ]
    kinds = [*OPERATIONS, OTHER]
    shares = [[row["run"], *(f"{100 * row['profile'].get(kind, 0):.1f}" for kind in kinds)] for row in rows]
    return {
        "results": table(head, lines),
        "profile": table(["time of a step, in %", *kinds], shares),
        "optimizers": optimizer_table(optimizers),
        "losses": loss_table(losses),
        "variants": variant_table(variants),
    }


def optimizer_table(rows: list[Row]) -> list[str]:
    """What a step of each optimizer costs beside the forward and backward pass."""
    lines = [
        [
            row["run"],
            f"{row['optimizer_sec']:.3f} s",
            f"{row['forward_backward_sec']:.2f} s",
            f"{100 * row['optimizer_sec'] / (row['optimizer_sec'] + row['forward_backward_sec']):.0f}",
        ]
        for row in rows
    ]
    return table(["", "step of the optimizer", "forward and backward", "share of the optimizer, %"], lines)


def loss_table(rows: list[Row]) -> list[str]:
    """What the loss in the grammar costs beside the network, with spans of ids and with all of them."""
    lines = []
    for row in rows:
        network, spans, every = (row[f"{key}_sec"] for key in ("network", "loss", "loss_of_all_ids"))
        lines.append(
            [
                row["run"].removeprefix("loss, "),
                *(f"{value:.2f} s" for value in (network, every, spans)),
                f"{every / spans:.1f} ×",
                f"{(network + every) / (network + spans):.2f} ×",
            ]
        )
    return table(["", "network", "loss, all ids", "loss, spans", "loss faster", "step faster"], lines)


def variant_table(rows: list[Row]) -> list[str]:
    """A step in each precision, as it is and compiled."""
    by_variant = {(row["precision"], row["compiled"]): row for row in rows}
    lines = []
    for precision in dict.fromkeys(row["precision"] for row in rows):
        eager, compiled = (by_variant[precision, is_compiled] for is_compiled in (False, True))
        lines.append(
            [
                precision,
                *(f"{row['step_sec']:.2f} s" for row in (eager, compiled)),
                f"{eager['step_sec'] / compiled['step_sec']:.2f} ×",
                f"{compiled['first_step_sec']:.0f} s",
                *(f"{row['peak_rss_mb'] / 1024:.1f}" for row in (eager, compiled)),
            ]
        )
    head = ["precision", "step", "compiled", "faster", "first compiled step", "peak GiB", "compiled"]
    return table(head, lines)
