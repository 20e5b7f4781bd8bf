"""Times one row by the matrices of a model as products and as dot products over columns: `python products.py`.

One thread. Shapes: I inputs and O outputs of a matrix.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml

from pianolm.generation.engine.blas import OneThread

CONF = Path(__file__).parents[3] / "conf" / "model"
SIZES = ("tiny", "small")
REPEATS = 200


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


def main() -> None:
    rng = np.random.default_rng(0)
    for size in SIZES:
        by_rows = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes(size)]
        by_columns = [np.ascontiguousarray(matrix_IO.T) for matrix_IO in by_rows]
        row = {width: rng.standard_normal((1, width), dtype=np.float32) for width, _ in shapes(size)}

        def products(matrices: list[np.ndarray] = by_rows, row: dict[int, np.ndarray] = row) -> None:
            for matrix_IO in matrices:
                np.matmul(row[matrix_IO.shape[0]], matrix_IO)

        def dots(matrices: list[np.ndarray] = by_columns, row: dict[int, np.ndarray] = row) -> None:
            for matrix_OI in matrices:
                np.vecdot(matrix_OI, row[matrix_OI.shape[1]])

        with OneThread():
            times = microseconds(products), microseconds(dots)
        mib = sum(matrix.nbytes for matrix in by_rows) / 2**20
        print(f"{size}, {mib:.1f} MiB a token: products {times[0]:.0f} µs, dot products {times[1]:.0f} µs")


if __name__ == "__main__":
    main()
