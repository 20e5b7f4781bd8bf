"""Products of rows with a matrix in which no bit of a row depends on the other rows.

A library may add in another order where it multiplies more rows at once. Then each row is multiplied by itself, which
reads the matrix once a row. Where all numbers of rows give the same bits, several rows are multiplied at once. OpenBLAS
does so for small products with AVX-512: it works on the matrix where it lies instead of copying it first. Therefore a
matrix is kept in blocks of columns that are small enough (`experiments/benchmarks/generation-speed`).

Shapes: N rows, P of them with padding, I inputs, O outputs, C column blocks, W = O / C width of a block.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pianolm.generation.engine.base import Array
from pianolm.generation.engine.blas import OneThread

_TILE = 16
"""Rows multiplied at once."""
_LARGEST_PRODUCT = 10**6
"""Multiplications up to which OpenBLAS does not copy the matrix first."""
_BEYOND_CACHE = 1 << 18
"""Entries of a matrix (1 MiB) above which it does not stay in a core's cache between steps. Most of a product of one
row is then reading the matrix, and dot products with contiguous columns read it fastest."""
LARGE = 1 << 20
"""Entries of a matrix above which a second thread saves more than its synchronisation costs."""
_SLOWEST = 2.0
"""Time of one row in a tile over that of a row by itself above which rows are multiplied by themselves: without kernels
for small products it is above 3, with them below 1.4."""

Operands = list[tuple[Array, Array]]
"""Views of the rows and of the results that belong together."""


@dataclass(frozen=True)
class Products:
    """How the products of a model are computed.

    Attributes:
        tile: Rows multiplied at once; 1 multiplies each row by itself.
        by_dots: Whether a product of one row is computed as one dot product per column.
    """

    tile: int
    by_dots: bool = False

    def padded(self, rows: int) -> int:
        """P: a row that is left alone gets a second one, since NumPy multiplies a single row by another function."""
        return rows + (self.tile > 1 and rows % self.tile == 1)

    def blocks(self, inputs: int, outputs: int) -> int:
        """C: into how many blocks of equal width a matrix is cut."""
        if self.tile == 1:
            return 1
        at_least = -(-self.tile * inputs * outputs // _LARGEST_PRODUCT)
        return next(count for count in range(at_least, outputs + 1) if outputs % count == 0)

    def layout(self, matrix_IO: Array, blocks: int | None = None) -> Array:
        """A matrix as `multiply` takes it: [C, 1, I, W], by dots [C, 1, W, I]; contiguous."""
        inputs, outputs = matrix_IO.shape
        count = self.blocks(inputs, outputs) if blocks is None else blocks
        matrix_C1IW = matrix_IO.reshape(inputs, count, 1, -1).transpose(1, 2, 0, 3)
        return np.ascontiguousarray(matrix_C1IW.mT if self.by_dots else matrix_C1IW)

    def operands(self, x_PI: Array, out_PO: Array, blocks: int) -> Operands:
        """Views of contiguous rows and of their results, for all matrices with this number of blocks."""
        whole = len(x_PI) // self.tile * self.tile
        parts = [(slice(0, whole), self.tile), (slice(whole, len(x_PI)), len(x_PI) - whole)]
        found: Operands = []
        for rows, tile in parts:
            if rows.start < rows.stop:
                x = x_PI[rows].reshape(1, -1, tile, x_PI.shape[1])
                out = out_PO[rows].reshape(x.shape[1], tile, blocks, -1).transpose(2, 0, 1, 3)
                found.append((x, out[:, :, 0] if self.by_dots else out))
        return found

    def multiply(self, operands: Operands, matrix: Array) -> None:
        """Computes the results of all rows."""
        product: Callable[..., Array] = np.vecdot if self.by_dots else np.matmul
        for x, out in operands:
            product(x, matrix, out=out)


TILED = Products(_TILE)


@lru_cache
def choose_products(shapes: frozenset[tuple[int, int]]) -> Products:
    """The fastest way for matrices of these shapes (I, O) in which no row depends on the others.

    The choice is the same each time on one machine, since bits depend on it.
    """
    largest = max(inputs * outputs for inputs, outputs in shapes)
    if largest < LARGE:
        blocks = {(inputs, outputs // TILED.blocks(inputs, outputs)) for inputs, outputs in shapes}
        with OneThread():
            if all(rows_are_independent(*block) for block in blocks) and _tiles_are_fast(shapes):
                return TILED
    return Products(tile=1, by_dots=_BEYOND_CACHE <= largest < LARGE)


def rows_are_independent(inputs: int, width: int) -> bool:
    """Whether products of 2 to `_TILE` rows with a block give the same bits for each row."""
    rng = np.random.default_rng(0)
    x_NI = rng.standard_normal((_TILE, inputs), np.float32)
    block_IW = rng.standard_normal((inputs, width), np.float32)
    pairs_NW = (x_NI.reshape(-1, 2, inputs) @ block_IW).reshape(_TILE, width)
    return all(
        np.array_equal(x_NI[first : first + count] @ block_IW, pairs_NW[first : first + count])
        for count in range(2, _TILE + 1)
        for first in {0, (_TILE - count) // 2, _TILE - count}
    )


def _tiles_are_fast(shapes: frozenset[tuple[int, int]]) -> bool:
    """Whether one row in a tile takes not much longer than by itself."""
    seconds = dict.fromkeys((TILED, Products(tile=1)), 0.0)
    for inputs, outputs in shapes:
        for products in seconds:
            matrix = products.layout(np.ones((inputs, outputs), np.float32))
            x_PI = np.ones((products.padded(1), inputs), np.float32)
            out_PO = np.empty((len(x_PI), outputs), np.float32)
            operands = products.operands(x_PI, out_PO, len(matrix))
            seconds[products] += min(_seconds(products, operands, matrix) for _ in range(8))
    return seconds[TILED] < _SLOWEST * seconds[Products(tile=1)]


def _seconds(products: Products, operands: Operands, matrix: Array) -> float:
    start = time.perf_counter()
    products.multiply(operands, matrix)
    return time.perf_counter() - start
