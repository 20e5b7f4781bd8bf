"""Times 1 and 16 rows by the matrices of a model in each way that the engine knows: `python products.py`.

One thread. Shapes: I inputs and O outputs of a matrix, P rows with padding.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from pianolm.generation.engine.blas import OneThread
from pianolm.generation.engine.products import TILED, Products

CONF = Path(__file__).parents[3] / "conf" / "model"
SIZES = ("tiny", "small")
WAYS = {"each row by itself": Products(1), "by dots": Products(1, by_dots=True), "rows at once": TILED}
REPEATS = 100


def shapes(size: str) -> list[tuple[int, int]]:
    """Of all matrices that one token goes through."""
    model = yaml.safe_load((CONF / f"{size}.yaml").read_text("utf-8"))
    width, ffn = model["width"], model["ffn"]
    head = width // model["heads"]
    qkv = (model["heads"] + 2 * model["kv_heads"]) * head
    return [(width, qkv), (width, width), (width, 2 * ffn), (ffn, width)] * model["layers"]


def microseconds(run: Callable[[], None]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def prepared(products: Products, rows: int, size: str) -> Callable[[], None]:
    """All products of a token, with random numbers."""
    rng, steps = np.random.default_rng(0), []
    for inputs, outputs in shapes(size):
        matrix = products.layout(rng.standard_normal((inputs, outputs), dtype=np.float32))
        x_PI = rng.standard_normal((products.padded(rows), inputs), dtype=np.float32)
        out_PO = np.empty((len(x_PI), outputs), np.float32)
        steps.append((products.operands(x_PI, out_PO, len(matrix)), matrix))

    def run() -> None:
        for operands, matrix in steps:
            products.multiply(operands, matrix)

    return run


def main() -> None:
    for size in SIZES:
        for rows in (1, 16):
            with OneThread():
                times = {name: microseconds(prepared(way, rows, size)) for name, way in WAYS.items()}
            print(
                f"{size}, rows {rows}: " + ", ".join(f"{name} {time:.0f} µs" for name, time in times.items())
            )


if __name__ == "__main__":
    main()
