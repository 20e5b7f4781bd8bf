"""Tokens a second of CPU time with and without `repeat`, in turn.

python speed.py MODEL OUT    OUT is the file with the result
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

from pianolm import PianoLM

ROUNDS, BEATS = 3, 64
STRENGTHS = (0.0, 2.0)


def main(model: str, out: Path) -> None:
    lm = PianoLM.from_pretrained(model)
    lm.generate(beats=4)
    rates: dict[float, list[float]] = {strength: [] for strength in STRENGTHS}
    for seed in range(ROUNDS):
        for strength in STRENGTHS:
            start = time.process_time()
            (piece,) = lm.generate_pieces(beats=BEATS, end="never", seed=seed, repeat=strength)
            rates[strength].append(piece.new_tokens / (time.process_time() - start))
    found = {f"repeat={strength:g}": round(median(values)) for strength, values in rates.items()}
    out.write_text(json.dumps({"tokens_per_cpu_second": found}) + "\n", "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
