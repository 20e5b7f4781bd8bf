"""Finds the same work in two data sets by composer and catalogue number, or by the words of its title.

Titles are written in many ways: `Etudes_op_10_3`, `Etude in E major op. 10, no. 3`, `Fuga I, BWV 846`,
`Piano_Sonatas_21-1`. What is compared is coarse on purpose: where a title leaves open which piece of an opus it is, or
names a movement, it counts as the same work. A piece too many is left out rather than one too few.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pianolm.errors import UserError

Catalogue = tuple[str, int]
"""A catalogue and the number in it, such as ("op", 10), ("bwv", 846) or ("hob", 1627) for Hob. XVI:27."""

_NUMBER_IN_OPUS = (
    r"(?:[\s.,:;/-]*\b(?:no|nr|n)[\s.]*(?P<no>\d+)"
    r"|\s*[\s,-]\s*(?P<first>\d+)(?:[\s-]+(?P<second>\d+))?(?!\d))?"
)
_OPUS = re.compile(
    r"(?<![a-z])(?:opus|op|o)(?:[\s.]*posth)?[\s.]*(?P<number>\d+)[a-z]?(?!\d)" + _NUMBER_IN_OPUS
)
_DEUTSCH = re.compile(r"(?<![a-z])d[\s.]*(?P<number>\d+)(?!\d)" + _NUMBER_IN_OPUS)
_SINGLE = {
    "bwv": re.compile(r"(?<![a-z])bwv[\s.]*(\d+)"),
    "k": re.compile(r"(?<![a-z])(?:kv|k)[\s.]*(\d+)"),
    "woo": re.compile(r"(?<![a-z])woo[\s.]*(\d+)"),
    "s": re.compile(r"(?<![a-z])s[\s.]*(\d+)"),
}
"""Catalogues whose numbers are works; what follows is a movement."""
_HOBOKEN = re.compile(r"(?<![a-z])hob(?:oken)?[\s.]*xvi[\s.:]*(\d+)")
_SERIES = re.compile(r"(sonat|ballad|scherz|polonais|fantasi)[a-z]*\s+(?:no[\s.]*)?(\d+)")
"""Numbered works without a catalogue number, as in `Piano_Sonatas_21-1`, `Ballades_1` or `Fantasie_475`."""
_BEETHOVEN_SONATAS = (
    (2, 1),
    (2, 2),
    (2, 3),
    (7, None),
    (10, 1),
    (10, 2),
    (10, 3),
    (13, None),
    (14, 1),
    (14, 2),
    (22, None),
    (26, None),
    (27, 1),
    (27, 2),
    (28, None),
    (31, 1),
    (31, 2),
    (31, 3),
    (49, 1),
    (49, 2),
    (53, None),
    (54, None),
    (57, None),
    (78, None),
    (79, None),
    (81, None),
    (90, None),
    (101, None),
    (106, None),
    (109, None),
    (110, None),
    (111, None),
)
"""Opus and number in the opus of each sonata."""
_MOZART_SONATAS = (279, 280, 281, 282, 283, 284, 309, 310, 311, 330, 331, 332, 333, 457, 545, 570, 576, 533)
_CHOPIN = {
    "sonat": {1: 4, 2: 35, 3: 58},
    "ballad": {1: 23, 2: 38, 3: 47, 4: 52},
    "scherz": {1: 20, 2: 31, 3: 39, 4: 54},
}
_NAMES = {"burgmueller": "burgmuller", "tschaikowsky": "tchaikovsky", "rachmaninov": "rachmaninoff"}
_BEST_KNOWN = {"bach": "j", "schumann": "r", "mendelssohn": "f", "haydn": "j"}
"""First letter of the given name that is meant where a table has these surnames alone."""
_SAME_WORD = 5
"""Letters at which words are compared, so that `sonatas` and `Sonate` are the same."""
_LONG_WORD = 4
_LISTED_SPLITS = ("validation", "valid", "val", "test")
_TITLES = ("title", "ASAP_title", "CPM_title")


@dataclass(frozen=True)
class Work:
    """A composer and a title as some table writes them.

    Attributes:
        composer: `Chopin`, `Chopin, Fryderyk` or `Fryderyk Chopin`.
        title: The title.
    """

    composer: str
    title: str

    def __str__(self) -> str:
        return f"{self.composer}: {self.title}"

    @cached_property
    def surname(self) -> str:
        """Surname in lower-case ASCII."""
        return self._name[0]

    @cached_property
    def initial(self) -> str:
        """First letter of the given name, empty where it is unknown."""
        return self._name[1]

    @cached_property
    def catalogue(self) -> frozenset[Catalogue]:
        """Every catalogue number in the title."""
        return self._parsed[0]

    @cached_property
    def number(self) -> int | None:
        """Number of the piece in its opus, None where the title has none."""
        return self._parsed[1]

    @cached_property
    def words(self) -> frozenset[str]:
        """Beginnings of the longer words of the title."""
        return frozenset(
            word[:_SAME_WORD] for word in re.findall("[a-z]+", _plain(self.title)) if len(word) >= _LONG_WORD
        )

    @cached_property
    def _name(self) -> tuple[str, str]:
        text = _plain(self.composer)
        last, _, given = (
            text.partition(",") if "," in text else (text.split(" ")[-1], "", text.partition(" ")[0])
        )
        given = "" if given.strip() == last.strip() else given.strip()
        last = re.split("[ -]", last.strip() or "?")[0]
        last = _NAMES.get(last, last)
        return last, given[:1] or _BEST_KNOWN.get(last, "")

    @cached_property
    def _parsed(self) -> tuple[frozenset[Catalogue], int | None]:
        text = _plain(self.title)
        keys, number = _catalogue_numbers(text)
        return (frozenset(keys), number) if keys else _series(self.surname, text)

    def same_as(self, listed: Work) -> bool:
        """Whether this is a listed work, or may be: see the module's description."""
        if self.surname != listed.surname or not _agree(self.initial or None, listed.initial or None):
            return False
        if listed.catalogue:
            return bool(self.catalogue & listed.catalogue) and _agree(self.number, listed.number)
        return bool(listed.words) and listed.words <= self.words


def _agree(a: object, b: object) -> bool:
    return a is None or b is None or a == b


def _plain(text: str) -> str:
    """Lower-case ASCII with spaces for underscores."""
    text = unicodedata.normalize("NFKD", text.replace("ł", "l").replace("Ł", "L"))
    return " ".join(text.encode("ascii", "ignore").decode().lower().replace("_", " ").split())


def _catalogue_numbers(text: str) -> tuple[set[Catalogue], int | None]:
    keys = {(name, int(n)) for name, pattern in _SINGLE.items() for n in pattern.findall(text)}
    keys |= {("hob", 1600 + int(n)) for n in _HOBOKEN.findall(text)}
    number = None
    for name, pattern in (("op", _OPUS), ("d", _DEUTSCH)):
        for found in pattern.finditer(text):
            keys.add((name, int(found["number"])))
            # In `Sonata_Opus_22_1` the number is a movement, in `Sonata_Opus_10_1_2` the first one is a piece.
            movement = found["first"] and not found["second"] and re.search("sonat|fantas", text)
            piece = found["no"] or (None if movement else found["first"])
            if piece and number is None:
                number = int(piece)
    return keys, number


def _series(surname: str, text: str) -> tuple[frozenset[Catalogue], int | None]:
    """Catalogue number of a work that is numbered in its series, as far as this is known."""
    found = _SERIES.search(text)
    if not found:
        return frozenset(), None
    genre, number = found[1], int(found[2])
    if surname == "beethoven" and genre == "sonat" and 1 <= number <= len(_BEETHOVEN_SONATAS):
        opus, piece = _BEETHOVEN_SONATAS[number - 1]
        return frozenset({("op", opus)}), piece
    key: Catalogue | None = None
    if surname == "mozart":
        short = genre == "sonat" and 1 <= number <= len(_MOZART_SONATAS)
        key = ("k", _MOZART_SONATAS[number - 1] if short else number)
    elif surname == "haydn" and genre == "sonat":
        key = ("hob", 1600 + number)
    elif surname == "schubert" and genre == "sonat" and number > 21:  # fewer are numbers of the series
        key = ("d", number)
    elif surname == "chopin":
        key = ("op", _CHOPIN.get(genre, {}).get(number, number))
    return (frozenset({key}) if key else frozenset()), None


class ListedWorks:
    """Works that must not be used, from tables and from single works.

    Args:
        entries: Paths of comma-separated tables, and works such as `Chopin: op. 10 no. 3`. A table has a column
            `composer` and one or more of `title`, `ASAP_title` and `CPM_title`; of a table with a column `split` the
            validation and test rows count. A work may end in several numbers or a range: `Bach: BWV 846-893, 903`.

    Raises:
        UserError: An entry is neither.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._by_surname: dict[str, list[tuple[Work, str]]] = {}
        for entry in entries:
            is_table = entry.lower().endswith(".csv")
            origin = Path(entry).parent.name + "/" + Path(entry).name if is_table else "data.exclude"
            for work in _read_table(Path(entry).expanduser()) if is_table else _works_of_entry(entry):
                self._by_surname.setdefault(work.surname, []).append((work, origin))

    def find(self, work: Work) -> tuple[Work, str] | None:
        """The first listed work that this one is or may be, and the name of its list; None where there is none."""
        listed = self._by_surname.get(work.surname, ())
        return next(((other, origin) for other, origin in listed if work.same_as(other)), None)


def _read_table(path: Path) -> Iterable[Work]:
    expected = "ASAP's metadata.csv or ACPAS's distinct_pieces.csv"
    if not path.is_file():
        raise UserError(f"data.exclude: {path} is no file, expected a table of works such as {expected}")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), reader.fieldnames or ()
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(
            f"data.exclude: {path} is no comma-separated text ({error}), expected {expected}"
        ) from error
    titles = [name for name in _TITLES if name in columns]
    if "composer" not in columns or not titles:
        raise UserError(
            f"data.exclude: {path} has the columns {', '.join(columns)}, expected composer and title as in {expected}"
        )
    counted = (
        row for row in rows if "split" not in columns or row["split"].strip().lower() in _LISTED_SPLITS
    )
    pairs = ((row["composer"], row[title]) for row in counted for title in titles if row[title])
    return [Work(*pair) for pair in dict.fromkeys(pairs)]


def _works_of_entry(entry: str) -> list[Work]:
    composer, colon, title = (part.strip() for part in entry.partition(":"))
    if not (composer and colon and title):
        raise UserError(
            f"data.exclude: {entry!r} found, expected a table (FILE.csv) or a work such as 'Chopin: op. 10 no. 3'"
        )
    several = re.fullmatch(r"(.*?)(\d+(?:-\d+)?(?:\s*,\s*\d+(?:-\d+)?)*)", title)
    if not several:
        return [Work(composer, title)]
    works = []
    for part in several[2].split(","):
        first, _, last = part.strip().partition("-")
        works += [Work(composer, f"{several[1]}{n}") for n in range(int(first), int(last or first) + 1)]
    return works
