"""How many threads NumPy's own OpenBLAS multiplies with."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable

_NAMES = (("scipy_openblas", "64_"), ("openblas", "64_"), ("openblas", ""))
"""What the functions are called in NumPy's wheels, and in other builds."""


class OneThread:
    """`with OneThread():` keeps products of small matrices on one thread.

    Threads that share a product of a few microseconds wait for each other longer than it takes, and where other
    programs run, a hundred times longer. Does nothing where NumPy multiplies with another library.
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
    """Reads and sets the number of threads."""
    try:
        # Functions of the libraries that a module was linked with are found through the module.
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    except (ImportError, OSError, TypeError):
        return (lambda: 1), (lambda threads: None)
    for name, ending in _NAMES:
        try:
            return library[f"{name}_get_num_threads{ending}"], library[f"{name}_set_num_threads{ending}"]
        except AttributeError:
            continue
    return (lambda: 1), (lambda threads: None)
