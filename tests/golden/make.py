"""Makes the golden files: `python -m tests.golden.make`. Only for a new format: ids must not change.

`tokenizer/` is a saved tokenizer, `piece.mid` with its beats a composed performance, `dense.mid`
trills that need all levels, `ids.json` their ids.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from pianolm import PianoTokenizer, Piece
from pianolm.data.sources.demo import write_piece
from pianolm.data.sources.demo.composer import compose
from pianolm.music.midi import write_midi
from pianolm.music.notes import make_notes
from pianolm.tokenizer.codebook_fit import fit_codebook
from pianolm.tokenizer.tempo import TempoBins
from pianolm.tokenizer.velocity.segment import SegmentCodec
from pianolm.tokenizer.vocabulary import Vocabulary
from pianolm.velvq.network_segment import number_codes

HERE = Path(__file__).parent


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        written = write_piece(compose(0, 4), Path(directory), 0)
        written.rename(HERE / "piece.mid")
        written.with_name(f"{written.stem}_annotations.txt").rename(HERE / "piece_annotations.txt")
    count = np.arange(400)
    onset = count * 0.0217
    dense = make_notes(onset, onset + 0.01 + 0.003 * (count % 7), 60 + count * 7 % 5, 30 + count * 13 % 90)
    write_midi(HERE / "dense.mid", dense, np.arange(20) * 0.5)
    piece = Piece.from_midi(HERE / "piece.mid", default_tempo="use")
    cells = piece.cells
    rng = np.random.default_rng(0)
    learned = {n: np.clip(rng.normal(64, 18, (512, n)), 1, 127).astype(np.uint8) for n in range(2, 7)}
    tokenizer = PianoTokenizer(
        # Half of the cells: the other half brings patterns that need all levels.
        fit_codebook(cells.sustain[::2], cells.onset[::2], Vocabulary()).codebook,
        TempoBins(),
        SegmentCodec.from_tables(number_codes(learned, 512, 6)),
    )
    tokenizer.save_pretrained(HERE / "tokenizer")
    base = tokenizer.without_velocities()
    ids = {
        name: {
            mode: tokens.encode(Piece.from_midi(HERE / f"{name}.mid", default_tempo="use")).ids.tolist()
            for mode, tokens in (("velocity", tokenizer), ("base", base))
        }
        for name in ("piece", "dense")
    }
    (HERE / "ids.json").write_text(json.dumps(ids) + "\n")


if __name__ == "__main__":
    main()
