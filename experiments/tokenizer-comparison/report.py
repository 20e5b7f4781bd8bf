"""The tables and the picture of rows that compare.py made."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""Student's t of a 95 % interval, by seeds."""
GRAMMAR = "in_grammar"
"""The part of a row whose bits are those of each token among the ids that may stand there."""
COLUMNS = {
    "bits_per_note": "bits per note",
    GRAMMAR: "in the grammar",
    "tempo": "tempo",
    "pitch": "pitch",
    "time": "time",
    "velocity": "velocity",
    "bits_per_second": "bits per second",
    "tokens_per_note": "tokens per note",
}
SIDES = {
    ("pianolm", "table"): "pianolm, table",
    ("pianolm", "codebook"): "pianolm, codebook",
    ("tsd", "table"): "MidiTok TSD",
    ("remi", "table"): "MidiTok REMI",
    ("pertok", "table"): "MidiTok PerTok",
    ("tsd_tempo", "table"): "MidiTok TSD with tempo",
}
Row = dict[str, Any]


def side_of(row: Row) -> str:
    job = row["job"]
    return ", ".join(filter(None, (SIDES[job["tokens"], job["embedding"]], job["options"])))


def learned_in_grammar(row: Row) -> bool:
    """Whether a row's model learned each token as one of those that may stand there: free bits say nothing then."""
    return "grammar" in row["job"]["options"].split()


def best_rows(rows: list[Row]) -> dict[str, list[Row]]:
    """By side the rows, one a seed, of the learning rate that is best in the grammar on average of its seeds.

    A rate that lacks seeds which another one has is not chosen.
    """
    by_side: dict[str, dict[float, list[Row]]] = {}
    for row in rows:
        by_side.setdefault(side_of(row), {}).setdefault(row["job"]["learning_rate"], []).append(row)
    best = {}
    for side, by_rate in by_side.items():
        seeds = max(len(found) for found in by_rate.values())
        whole = [found for found in by_rate.values() if len(found) == seeds]
        best[side] = min(whole, key=lambda found: mean(map(in_grammar, found)))
    return best


def interval(values: list[float], digits: int = 2) -> str:
    """Mean, and half of its 95 % interval where seeds differ; a dash for what there is none of."""
    if not any(values):
        return "–"
    text = f"{mean(values):.{digits}f}"
    if len(values) > 1 and stdev(values):
        t = T_95.get(len(values), 1.96)
        text += f" ± {t * stdev(values) / len(values) ** 0.5:.{digits}f}"
    return text


def bits_of(row: Row, column: str = "bits_per_note") -> float:
    """A column of `COLUMNS`: all but the first are in the grammar; that is 0 where it says nothing."""
    value: float
    if column == "bits_per_note":
        value = 0.0 if learned_in_grammar(row) else row[column]
    elif column == "bits_per_second":
        scored = row["validation"]
        value = in_grammar(row) * scored["notes"] / scored["seconds"]
    elif column == GRAMMAR:
        value = row[GRAMMAR]["bits_per_note"]
    else:
        value = row[GRAMMAR].get(column, row.get(column, 0.0))
    return value


def in_grammar(row: Row) -> float:
    """Bits per note, each token one of those that may stand there."""
    return bits_of(row, GRAMMAR)


def whole(row: Row) -> float:
    """Bits per note in the grammar without the tempo's value, what the tokens leave out told beside them."""
    return without_tempo(row) + sum(left_worth(row))


def without_tempo(row: Row) -> float:
    return in_grammar(row) - row["tempo"]


def left_worth(row: Row) -> tuple[float, float]:
    return row["left_out"]["ends_worth"], row["left_out"]["velocities_worth"]


def table(head: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *lines)]


def main_table(best: dict[str, list[Row]]) -> list[str]:
    head = ["tokens", "learning rate", *COLUMNS.values(), "µs a note", "parameters"]
    lines = []
    for side, rows in best.items():
        columns = [interval([bits_of(row, name) for row in rows]) for name in COLUMNS]
        speed = f"{1e6 * mean(row['seconds_per_note'] for row in rows):.0f}"
        rate = f"{rows[0]['job']['learning_rate']:g}"
        lines.append([side, rate, *columns, speed, f"{rows[0]['parameters']:,}"])
    return table(head, lines)


def left_table(best: dict[str, list[Row]]) -> list[str]:
    head = [
        *(
            "tokens",
            "ends inexact",
            "worth at most",
            "velocities inexact",
            "worth at most",
            "notes held over",
        ),
        *("without tempo", "and with what is left out"),
    ]
    lines = []
    for side, rows in best.items():
        out, (ends, velocities) = rows[0]["left_out"], left_worth(rows[0])
        lines.append(
            [
                *(side, f"{100 * out['ends_inexact']:.1f} %", f"{ends:.2f}"),
                *(f"{100 * out['velocities_inexact']:.1f} %", f"{velocities:.2f}"),
                interval([row["held"] for row in rows]),
                interval([without_tempo(row) for row in rows]),
                interval([whole(row) for row in rows]),
            ]
        )
    return table(head, lines)


def rate_table(rows: list[Row]) -> list[str]:
    rates = sorted({row["job"]["learning_rate"] for row in rows})
    lines = []
    for side in dict.fromkeys(map(side_of, rows)):
        found = {rate: [] for rate in rates}
        for row in rows:
            if side_of(row) == side:
                found[row["job"]["learning_rate"]].append(in_grammar(row))
        lines.append([side, *(interval(values) if values else "–" for values in found.values())])
    return table(
        ["bits per note in the grammar at a learning rate of", *(f"{rate:g}" for rate in rates)], lines
    )


def type_lines(best: dict[str, list[Row]]) -> list[str]:
    lines = []
    for side, rows in best.items():
        found = [row[GRAMMAR]["by_type"] for row in rows]
        kinds = {kind: mean(row.get(kind, 0.0) for row in found) for kind in found[0]}
        lines.append(f"- {side}: " + ", ".join(f"{kind} {value:.2f}" for kind, value in kinds.items()))
    return lines


def markdown(rows: list[Row]) -> str:
    """The tables, mode after mode."""
    lines = []
    for mode in dict.fromkeys(row["job"]["mode"] for row in rows):
        of_mode = [row for row in rows if row["job"]["mode"] == mode]
        best, job = best_rows(of_mode), of_mode[0]["job"]
        seeds = sorted({row["job"]["seed"] for row in of_mode})
        scored = of_mode[0]["validation"]
        lines += [
            f"With{'' if mode == 'velocity' else 'out'} velocities, after {job['notes']:,} notes "
            f"({len(seeds)} seed{'s' if len(seeds) > 1 else ''}), on {scored['pieces']} validation performances of "
            f"{scored['notes']:,} notes:",
            "",
            *main_table(best),
            "",
            "What the tokens leave out, in bits per note in the grammar:",
            "",
            *left_table(best),
            "",
            *rate_table(of_mode),
            "",
            "Bits per note in the grammar by kind of token:",
            "",
            *type_lines(best),
            "",
        ]
    return "\n".join(lines[:-1])


def budget_table(rows: list[Row]) -> list[str]:
    """Bits per note, free and in the grammar, by notes learned from, each side at its best rate at that budget."""
    budgets = sorted({row["job"]["notes"] for row in rows})
    found = {notes: best_rows([row for row in rows if row["job"]["notes"] == notes]) for notes in budgets}
    head = [
        "after so many notes",
        *(f"{notes:,}{kind}" for notes in budgets for kind in ("", ", in the grammar")),
    ]

    def cell(side: str, notes: int, column: str) -> str:
        of_side = found[notes].get(side)
        return "–" if of_side is None else interval([bits_of(row, column) for row in of_side])

    return table(
        head,
        [
            [side, *(cell(side, notes, column) for notes in budgets for column in ("bits_per_note", GRAMMAR))]
            for side in dict.fromkeys(map(side_of, rows))
        ],
    )


MIDITOK = ("tsd", "remi", "tsd_tempo")
MEASURES = {
    "bits_per_note": bits_of,
    "grammar_bits_per_note": in_grammar,
    "grammar_bits_per_note_without_tempo": without_tempo,
}


def headlines(rows: list[Row]) -> dict[str, float]:
    """By data set and budget what codebook embeddings need of what others do, in bits per note with velocities.

    Of a plan that is not `trial`, its name stands in front. A table has the same options of the tokenizer; MidiTok's
    are the better of those that learned in the grammar and those that did not. All of it, and in the grammar, and there
    without the tempo's value, which not all of MidiTok's tokens tell.
    """
    found: dict[str, float] = {}
    keys = dict.fromkeys(tuple(row["job"][key] for key in ("plan", "data", "notes")) for row in rows)
    for plan, data, notes in keys:
        best = best_rows(
            [
                row
                for row in rows
                if (row["job"]["plan"], row["job"]["data"], row["job"]["notes"]) == (plan, data, notes)
                and row["job"]["mode"] == "velocity"
            ]
        )
        place = "_".join(filter(None, ("" if plan == "trial" else plan, data, str(notes))))
        for side, of_side in best.items():
            if not side.startswith(SIDES["pianolm", "codebook"]):
                continue
            options = side.removeprefix(SIDES["pianolm", "codebook"])
            name = "_".join(filter(None, ("codebook", options.removeprefix(", ").replace(" ", "_"))))
            others = {
                "table": [SIDES["pianolm", "table"] + options],
                **{name: [SIDES[name, "table"], f"{SIDES[name, 'table']}, grammar"] for name in MIDITOK},
            }
            for short, names in others.items():
                for measure, of_row in MEASURES.items():
                    values = [mean(map(of_row, best[other])) for other in names if other in best]
                    own = mean(map(of_row, of_side))
                    if own and any(values):  # free bits of what learned in the grammar are none
                        ratio = own / min(filter(None, values))
                        found[f"{measure}_{name}_over_{short}/{place}"] = round(ratio, 4)
    return found


def draw(rows: list[Row], path: Path) -> None:
    """Bits per note in the grammar over notes seen, a panel a mode, each side at its best learning rate."""
    modes = list(dict.fromkeys(row["job"]["mode"] for row in rows))
    figure = Figure(figsize=(7 * len(modes), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(modes), squeeze=False)[0]
    for panel, mode in zip(panels, modes, strict=True):
        for side, found in best_rows([row for row in rows if row["job"]["mode"] == mode]).items():
            for nth, row in enumerate(found):
                seen, _, bits = zip(*row["curve"], strict=True)
                style = {"color": panel.lines[-1].get_color()} if nth else {"label": side}
                panel.plot(seen, bits, marker="o", markersize=3, linewidth=1, **style)
        panel.set_title(
            f"with{'' if mode == 'velocity' else 'out'} velocities, some validation performances", fontsize=10
        )
        panel.set_xlabel("notes seen")
        panel.set_ylabel("bits per note, in the grammar")
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.savefig(path, dpi=120)


def _order(row: Row) -> tuple[int, str, int]:
    job = row["job"]
    return list(SIDES).index((job["tokens"], job["embedding"])), job["options"], job["seed"]


def write_report(rows: list[Row], shared: dict[str, Any], out: Path) -> str:
    """Draws the rows whose jobs have these values, puts their tables into the README, and returns them.

    Tables and picture are of the largest budget, and one more table of all budgets.
    """
    plan, data = shared["plan"], shared["data"]
    rows = sorted((row for row in rows if shared.items() <= row["job"].items()), key=_order)
    if not rows:
        return f"no job of --plan {plan} --data {data} has a row yet"
    most = max(row["job"]["notes"] for row in rows)
    text = markdown([row for row in rows if row["job"]["notes"] == most])
    if len({row["job"]["notes"] for row in rows}) > 1:
        with_velocity = [row for row in rows if row["job"]["mode"] == "velocity"]
        least = min(row["job"]["notes"] for row in rows)
        rates = rate_table([row for row in with_velocity if row["job"]["notes"] == least])
        text += "\n\nWith velocities, at every budget:\n\n" + "\n".join(budget_table(with_velocity))
        text += f"\n\nAfter {least:,} notes:\n\n" + "\n".join(rates)
    picture = f"curves_{plan}_{data}.png"
    draw([row for row in rows if row["job"]["notes"] == most], out / picture)
    readme = out / "README.md"
    marks = f"<!-- {plan} {data}, written by compare.py -->", f"<!-- end of {plan} {data} -->"
    if readme.is_file() and all(mark in readme.read_text("utf-8") for mark in marks):
        before, _, rest = readme.read_text("utf-8").partition(marks[0])
        after = rest.partition(marks[1])[2]
        readme.write_text(
            f"{before}{marks[0]}\n{text}\n\n![bits per note over notes seen]({picture})\n{marks[1]}{after}",
            "utf-8",
        )
    return text
