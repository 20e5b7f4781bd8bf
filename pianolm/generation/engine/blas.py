"""Number of threads of NumPy's own OpenBLAS."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable

_NAMES = (("scipy_openblas", "64_"), ("openblas", "64_"), ("openblas", ""))
"""Prefix and suffix of the library's functions, in NumPy's wheels and in other builds."""


class OneThread:
    """`with OneThread():` computes products of small matrices on one thread.

    Threads that share a product of a few microseconds wait for each other longer than the product takes, and a hundred
    times longer where other programs run. Has no effect where NumPy uses another library.
    """

    def __init__(self) -> None:
        self._get, self._set = _thread_functions()
        self._before = 1

    def __enter__(self) -> None:
        self._before = self._get()
        if self._before != 1:
            self._set(1)

    def __exit__(self, *_: object) -> None:
        if self._before != 1:
            self._set(self._before)


def _thread_functions() -> tuple[Callable[[], int], Callable[[int], object]]:
    """The functions that get and set the number of threads."""
    try:
        # a module's handle also finds functions of the libraries that it was linked with
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError, TypeError):
        return (lambda: 1), (lambda threads: None)
    for prefix, suffix in _NAMES:
        try:
            return library[f"{prefix}_get_num_threads{suffix}"], library[f"{prefix}_set_num_threads{suffix}"]
        except AttributeError:
            continue
    return (lambda: 1), (lambda threads: None)
