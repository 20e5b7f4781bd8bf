"""Writes docs/listen: what the bundled model plays, to hear and to see, beside the human rest.

    python listen.py RUNS OUT

RUNS holds the runs `pop-samples` (evaluate=samples on all validation songs), `free` (pieces without a prompt) and
`others` (the prompts of prompts.py continued). OUT gets MP3, MIDI, pictures, index.html and tables of its README.md.
Nothing is chosen by ear: every eighth song, and whatever the seeds give.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterable
from html import escape
from pathlib import Path

import soundfile

from experiments.results import README, replace_section, table
from pianolm import Piece
from pianolm.evaluation.samples_report import HUMAN, MODEL, PIECES
from pianolm.report import audio
from pianolm.report.side_by_side import draw_side_by_side

EVERY = 8
PROMPT_BEATS = 16
SAMPLE_RATE_HZ, COMPRESSION = 22_050, 0.8
"""About 40 kbit/s."""
MOST_BYTES = 4_000_000
ROLLS_DPI = 75

COLUMNS = {
    "bar_likeness": ("bar likeness", 2),
    "in_key": ("in key, %", 0),
    "bass_on_downbeat": ("bars with bass, %", 0),
    "longer_than_a_bar": ("longer than a bar", 0),
    "notes_per_beat": ("notes a beat", 1),
    "tempo_sd_bpm": ("tempo ±, BPM", 1),
}
"""Statistics of the table, their words and decimals."""

Row = dict[str, str]


def songs_of(samples: Path) -> dict[str, dict[str, Row]]:
    """By song, the rows of both sides in pieces.csv, of every eighth song."""
    found: dict[str, dict[str, Row]] = {}
    with (samples / PIECES).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            name = Path(row["midi"]).stem.rpartition("_")[0]
            found.setdefault(name, {})[row["side"]] = row
    return {name: found[name] for name in sorted(found)[::EVERY]}


def save_sound(midi: Path, name: str, out: Path) -> None:
    """NAME.mp3 and NAME.mid of a MIDI file."""
    piece = Piece.from_midi(midi, beats="tempo_map")
    soundfile.write(
        out / f"{name}.mp3",
        audio.render(piece, SAMPLE_RATE_HZ),
        SAMPLE_RATE_HZ,
        compression_level=COMPRESSION,
        bitrate_mode="CONSTANT",
    )
    shutil.copyfile(midi, out / f"{name}.mid")


def links(name: str) -> str:
    return f"[sound]({name}.mp3), [MIDI]({name}.mid)"


def song_table(songs: dict[str, dict[str, Row]]) -> list[str]:
    """A line for each song: the model's figure, and the human one in brackets."""
    rows = []
    for name, sides in songs.items():
        figures = [
            " (".join(f"{float(sides[side][key] or 'nan'):.{digits}f}" for side in (MODEL, HUMAN)) + ")"
            for key, (_, digits) in COLUMNS.items()
        ]
        rows.append([name, sides[MODEL]["key"], *figures, links(name)])
    return table(["song", "key", *(words for words, _ in COLUMNS.values()), ""], rows)


def page(names: Iterable[str]) -> str:
    """Players for all pieces and the pictures, with no script."""
    players = "\n".join(
        f'<p>{escape(name)}<br><audio controls preload="none" src="{escape(name)}.mp3"></audio></p>'
        for name in names
    )
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>What pop plays</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "audio,img{width:100%}</style>\n<h1>What pop plays</h1>\n"
        "<p>Songs begin with 16 beats of the song itself; README.md says more of each.</p>\n"
        f'{players}\n<img src="songs.png" alt="Piano rolls of the model and of the human rest, by song">\n</html>\n'
    )


def main(runs: Path, out: Path) -> None:
    samples = runs / "pop-samples"
    songs = songs_of(samples)
    for name, sides in songs.items():
        save_sound(samples / sides[MODEL]["midi"], name, out)
    pieces = {
        name: {side: Piece.from_midi(samples / row["midi"], beats="tempo_map") for side, row in sides.items()}
        for name, sides in songs.items()
    }
    rolls = {f"{name}, {songs[name][MODEL]['key']}": sides for name, sides in pieces.items()}
    bars = [int(sides[MODEL]["bar_beats"] or 4) for sides in songs.values()]
    draw_side_by_side(rolls, PROMPT_BEATS, bars).savefig(out / "songs.png", dpi=ROLLS_DPI)
    rest = []
    for run in ("free", "others"):
        for midi in sorted((runs / run).glob("*.mid")):
            name = f"free-{len(rest) + 1}" if run == "free" else midi.stem.rpartition("_")[0]
            rest.append(name)
            save_sound(midi, name, out)
            shutil.copyfile(midi.with_suffix(".png"), out / f"{name}.png")
    replace_section(out / README, "songs", song_table(songs))
    replace_section(
        out / README, "others", table(["piece", "", ""], [[n, links(n), f"[picture]({n}.png)"] for n in rest])
    )
    (out / "index.html").write_text(page([*songs, *rest]), "utf-8")
    size = sum(path.stat().st_size for path in out.iterdir() if path.is_file())
    assert size <= MOST_BYTES, f"{out}: {size:,} bytes"
    print(f"{out}: {size:,} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(Path, sys.argv[1:]))
