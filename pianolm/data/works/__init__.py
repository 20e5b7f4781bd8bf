"""Works: which pieces are the same music, whatever they are called and whoever plays them.

* `catalogue`: by composer and catalogue number, for works that must not be used (`data.exclude`).
* `note_sketch`, `alignment`, `finding`: by the notes, for pieces that must be in one split.
* `grouping`: the works and splits of a prepared data set, and the corrections of `data.works`.
"""

from pianolm.data.works.catalogue import ListedWorks, Work

__all__ = ["ListedWorks", "Work"]
