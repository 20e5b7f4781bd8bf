"""Writes everything in docs/ and experiments/ that is made from the code: `python -m docs.site.write`."""

from __future__ import annotations

from docs.site import bars, book, keys, options, stages, tour
from docs.site.hooks import ROOT


def main() -> None:
    """Writes the pages of this checkout."""
    options.write(ROOT)
    keys.write(ROOT)
    book.write(ROOT)
    stages.write(ROOT)
    bars.write(ROOT)
    tour.write(ROOT)


if __name__ == "__main__":
    main()
