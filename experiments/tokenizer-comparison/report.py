"""The tables, the picture and the headline ratios of the rows that compare.py writes."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.results import Row, table

PICTURE = "curves_{plan}_{data}.png"
OPTIMIZERS = {"adamw": "AdamW", "muon": "Muon"}
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t of a 95 % interval, by number of seeds."""
CONSTRAINED = "constrained"
"""Key of the bits under the token mask in a row; option of a job that trained with `loss.constrained=true`."""
COLUMNS = {
    "bits_per_note": "all ids",
    CONSTRAINED: "constrained",
    "tempo": "tempo",
    "pitch": "pitch",
    "time": "time",
    "velocity": "velocity",
    "tied": "tied cells",
    "left_out": "left out, at most",
    "comparable": "comparable",
    "tokens_per_note": "tokens per note",
}
LEFT_OUT = ("onsets", "ends", "velocities")
SIDES = {
    ("pianolm", "table"): "pianolm, table",
    ("pianolm", "codebook"): "pianolm, codebook",
    ("tsd", "table"): "MidiTok TSD",
    ("remi", "table"): "MidiTok REMI",
    ("tsd_reminded", "table"): "MidiTok TSD with reminders",
    ("remi_reminded", "table"): "MidiTok REMI with reminders",
    ("beat", "table"): "MidiTok BEAT",
    ("pertok", "table"): "MidiTok PerTok",
    ("tsd_tempo", "table"): "MidiTok TSD with tempo",
}


def side_of(row: Row) -> str:
    """What a row is called: its tokens, embedding and options."""
    job = row["job"]
    mode = "without velocities" if job["mode"] == "base" else ""
    return ", ".join(filter(None, (SIDES[job["tokens"], job["embedding"]], mode, job["options"])))


def trained_constrained(row: Row) -> bool:
    """Whether a model trained under the token mask, so that its bits among all ids mean nothing."""
    return CONSTRAINED in row["job"]["options"].split()


def learning_of(row: Row) -> str:
    """Optimizer, learning rate and precision of a row; nothing is said of 32 bits."""
    job = row["job"]
    precision = "" if job["precision"] == "32" else f" {job['precision']}"
    return f"{OPTIMIZERS[job['optimizer']]} {job['learning_rate']:g}{precision}"


def best_rows(rows: list[Row]) -> dict[str, list[Row]]:
    """For each side the rows, one per seed, of what learns with the lowest mean of constrained bits.

    An optimizer, rate and precision with fewer seeds than another one of the same side is not chosen.
    """
    by_side: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        by_side.setdefault(side_of(row), {}).setdefault(learning_of(row), []).append(row)
    best = {}
    for side, by_rate in by_side.items():
        seeds = max(len(of_rate) for of_rate in by_rate.values())
        complete = [of_rate for of_rate in by_rate.values() if len(of_rate) == seeds]
        best[side] = min(complete, key=lambda of_rate: mean(map(constrained_bits, of_rate)))
    return best


def interval(values: list[float], digits: int = 2) -> str:
    """Mean and half of its 95 % interval over seeds; a dash if all values are 0."""
    if not any(values):
        return "–"
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1 and stdev(values):
        t = T_95.get(len(values), 1.96)
        text += f" ± {t * stdev(values) / len(values) ** 0.5:.{digits}f}"
    return text


def bits_of(row: Row, column: str = "bits_per_note") -> float:
    """A column of `COLUMNS`: all but the first are under the token mask; the first is 0 if it means nothing."""
    value: float
    if column == "bits_per_note":
        value = 0.0 if trained_constrained(row) else row[column]
    elif column == CONSTRAINED:
        value = row[CONSTRAINED]["bits_per_note"]
    elif column == "comparable":
        value = comparable_bits(row)
    else:
        value = row[CONSTRAINED].get(column, row.get(column, 0.0))
    return value


def constrained_bits(row: Row) -> float:
    """Bits per note, each token scored among the ids of its token mask."""
    return bits_of(row, CONSTRAINED)


def bits_without_beats(row: Row) -> float:
    """Constrained bits per note without which tempo and which place in the bar a beat has: only some tokens say so."""
    constrained = row[CONSTRAINED]
    return constrained_bits(row) - constrained["tempo"] - constrained["by_type"].get("bar", 0.0)


def comparable_bits(row: Row) -> float:
    """The same with what the tokens leave out, at the most that it can be worth."""
    return bits_without_beats(row) + sum(row["left_out"][f"{name}_worth"] for name in LEFT_OUT)


def left_out(row: Row) -> str:
    """What the tokens leave out, such as `ends of 1.3 %: 0.04`: upper bounds in bits per note."""
    errors = row["left_out"]
    found = [
        f"{name} of {100 * errors[f'{name}_inexact']:.1f} %: {errors[f'{name}_worth']:.2f}"
        for name in LEFT_OUT
        if errors[f"{name}_inexact"]
    ]
    return ", ".join(found) or "–"


def main_table(best: dict[str, list[Row]]) -> list[str]:
    head = ["tokens", "learned by", *COLUMNS.values(), "µs per note", "parameters"]
    lines = []
    for side, rows in best.items():
        columns = [
            left_out(rows[0]) if name == "left_out" else interval([bits_of(row, name) for row in rows])
            for name in COLUMNS
        ]
        speed = f"{1e6 * mean(row['seconds_per_note'] for row in rows):.0f}"
        lines.append([side, learning_of(rows[0]), *columns, speed, f"{rows[0]['parameters']:,}"])
    return table(head, lines)


def budget_table(rows: list[Row]) -> list[str]:
    """Bits by budget of notes: constrained with every optimizer and rate, and among all ids with the best."""
    of_budget = {notes: [row for row in rows if row["job"]["notes"] == notes] for notes in budgets(rows)}
    head = ["tokens", *(f"{notes:,}: {kind}" for notes in of_budget for kind in ("all ids", "constrained"))]
    lines = []
    for side in dict.fromkeys(map(side_of, rows)):
        line = [side]
        for chosen in of_budget.values():
            of_side = [row for row in chosen if side_of(row) == side]
            best = best_rows(of_side).get(side, [])
            line += [interval([bits_of(row) for row in best]), bits_by_learning(of_side)]
        lines.append(line)
    return table(head, lines)


def bits_by_learning(rows: list[Row]) -> str:
    """Constrained bits with each optimizer and rate, such as `18.32 AdamW 0.0005, 18.12 ± 0.03 AdamW 0.001`."""
    found: dict[str, list[float]] = {}
    for row in sorted(rows, key=lambda row: (row["job"]["optimizer"], row["job"]["learning_rate"])):
        found.setdefault(learning_of(row), []).append(constrained_bits(row))
    return ", ".join(f"{interval(bits)} {learning}" for learning, bits in found.items()) or "–"


def budgets(rows: list[Row]) -> list[int]:
    return sorted({row["job"]["notes"] for row in rows})


def of_largest_budget(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["job"]["notes"] == budgets(rows)[-1]]


def tables(rows: list[Row]) -> dict[str, list[str]]:
    """For each data set the models of the largest budget, and all budgets, optimizers and learning rates."""
    rows = sorted(rows, key=_order)
    by_data = {data: [row for row in rows if row["job"]["data"] == data] for data in _data_sets(rows)}
    found = {}
    for data, of_data in by_data.items():
        largest = of_largest_budget(of_data)
        best, scored = best_rows(largest), largest[0]["validation"]
        seeds = len({row["job"]["seed"] for row in largest})
        caption = (
            f"{data}, {largest[0]['job']['notes']:,} training notes, up to {seeds} seed{'s' * (seeds > 1)}; scored on "
            f"{scored['pieces']} validation performances, {scored['notes']:,} notes. Bits per note:"
        )
        found[data] = [caption, "", *main_table(best)]
        if len(budgets(of_data)) > 1:
            found[f"{data} budgets"] = budget_table(of_data)
    return found


def _data_sets(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["job"]["data"] for row in rows))


MIDITOK = ("tsd", "remi", "tsd_reminded", "remi_reminded", "tsd_tempo")
MEASURES = {
    "bits_per_note": bits_of,
    "grammar_bits_per_note": constrained_bits,
    "comparable_bits_per_note": comparable_bits,
}
HEADLINE = "asap_500000"
"""Data set and budget whose ratios have no suffix in metrics.json."""


def headlines(rows: list[Row]) -> dict[str, float]:
    """Ratios of bits per note with velocities: pianolm's codebook embeddings over the other sides.

    A key is `MEASURE_codebook_OPTIONS_over_OTHER/DATA_NOTES`, with the plan's name before DATA unless it is `trial`.
    The table has the same tokenizer options; of MidiTok's sides, the better of constrained and unconstrained training
    counts.
    """
    found: dict[str, float] = {}
    keys = dict.fromkeys(tuple(row["job"][key] for key in ("plan", "data", "notes")) for row in rows)
    for plan, data, notes in sorted(keys, key=lambda key: (key[0] != "trial", key[1], -key[2])):
        chosen = [
            row
            for row in rows
            if (row["job"]["plan"], row["job"]["data"], row["job"]["notes"]) == (plan, data, notes)
            and row["job"]["mode"] == "velocity"
        ]
        place = "_".join(filter(None, ("" if plan == "trial" else plan, data, str(notes))))
        suffix = "" if place == HEADLINE else f"/{place}"
        found |= {f"{key}{suffix}": value for key, value in _ratios(best_rows(chosen)).items()}
    return found


def _ratios(best: dict[str, list[Row]]) -> dict[str, float]:
    codebook, found = SIDES["pianolm", "codebook"], {}
    for side, rows in best.items():
        if not side.startswith(codebook):
            continue
        options = side.removeprefix(codebook)
        name = "_".join(["codebook", *options.removeprefix(", ").split()])
        others = {"table": [SIDES["pianolm", "table"] + options]}
        others |= {key: [SIDES[key, "table"], f"{SIDES[key, 'table']}, {CONSTRAINED}"] for key in MIDITOK}
        for short, sides in others.items():
            for measure, bits in MEASURES.items():
                values = [mean(map(bits, best[other])) for other in sides if other in best]
                own = mean(map(bits, rows))
                if own and any(values):  # bits among all ids of a model trained constrained are 0
                    found[f"{measure}_{name}_over_{short}"] = round(own / min(filter(None, values)), 4)
    return found


def draw(rows: list[Row], out: Path) -> None:
    """For each data set a picture: constrained bits over training notes, each side at its best learning rate."""
    rows = sorted(rows, key=_order)
    for data in _data_sets(rows):
        largest = of_largest_budget([row for row in rows if row["job"]["data"] == data])
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for side, of_side in best_rows(largest).items():
            for nth, row in enumerate(of_side):
                notes, _, bits = zip(*row["curve"], strict=True)
                style = {"color": axes.lines[-1].get_color()} if nth else {"label": side}
                axes.plot(notes, bits, marker="o", markersize=3, linewidth=1, **style)
        axes.set_title(f"{data}, some validation performances", fontsize=10)
        axes.set_xlabel("training notes")
        axes.set_ylabel("bits per note, constrained")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(out / PICTURE.format(plan=largest[0]["job"]["plan"], data=data), dpi=120)


def _order(row: Row) -> tuple[str, int, str, int]:
    job = row["job"]
    return job["data"], list(SIDES).index((job["tokens"], job["embedding"])), job["options"], job["seed"]
