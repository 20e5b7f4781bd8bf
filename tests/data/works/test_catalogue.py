"""The same work under different titles."""

from __future__ import annotations

from pathlib import Path

import pytest

from pianolm.data.works.catalogue import ListedWorks, Work
from pianolm.errors import UserError

SAME = [
    ("Chopin, Fryderyk: Etude in E major op. 10, no. 3", "Chopin: Etudes_op_10_3"),
    ("Chopin, Fryderyk: Etüde c-moll, Opus 10, No. 12", "Chopin: Etudes_Opus_10_12_Revolutionary"),
    ("Chopin, Frédéric: Ballade number 4, O 52", "Chopin: Ballades_4"),
    ("Chopin, Fryderyk: Scherzo in B minor op. 20", "Chopin: Scherzos_20"),
    ("Chopin, Fryderyk: Sonata in B minor op. 58", "Chopin: Sonata_3_2nd"),
    ("Chopin, Fryderyk: Prelude: Op. 28, No. 15, Op. 28", "Chopin: Preludes_Opus_28_15"),
    ("Chopin, Fryderyk: , Op. 28", "Chopin: Preludes_Opus_28_15"),
    ("Bach, Johann Sebastian: Fuga 15 - BWV 860", "Bach: Fugue_bwv_860"),
    ("Bach, Johann Sebastian: Fuga I, BWV 846", "Bach: The_Well-Tempered_Clavier_Part1_BWV_846"),
    ("Beethoven, Ludwig van: Sonata No. 21 (1st Movement), Op. 53", "Beethoven: Piano_Sonatas_21-2"),
    ("Beethoven, Ludwig van: Sonata, Op. 10, No. 1", "Beethoven: Sonata_No.5_C_major_Opus_10_1_2"),
    ("Beethoven, Ludwig van: Sonata, Op. 22 (2nd Movement)", "Beethoven: Sonata_No.11_Bb_major_Opus_22_1"),
    ("Beethoven, Ludwig van: Sonata No. 5, Op. 10, No. 1", "Beethoven: Piano_Sonatas_5-1"),
    ("Mozart, Wolfgang Amadeus: Sonate KV 331 - Tema", "Mozart: Piano_Sonatas_11-3"),
    ("Mozart, Wolfgang Amadeus: Sonata in A, K. 331", "Mozart: Sonata_No.11_A_major_KV_331_2"),
    ("Mozart, Wolfgang Amadeus: Fantasia, KV 475", "Mozart: Fantasie_475"),
    ("Schubert, Franz: Sonata, D. 664", "Schubert: Piano_Sonatas_664-1"),
    ("Schubert, Franz: Impromptu in As-dur, D.935 (Op. 142, No. 2)", "Schubert: Impromptus_Opus_posth_142_2"),
    ("Haydn, Joseph: Sonate II, Hob. XVI:31", "Haydn: Keyboard_Sonatas_31-1"),
    ("Haydn, Joseph: Sonate II, Hob. XVI:35", "Haydn: Piano_Sonata_in_C_major_Hoboken_XVI_35_1"),
    ("Debussy, Claude: Suite Bergamasque: Clair de Lune, L75", "Debussy: Suite_bergamasque_Clair_de_Lune"),
    ("Schumann, Robert: Kinderscenen - Glückes genug, O 15 N 5", "Schumann: Scenes_Opus_15_5_Happiness"),
    ("Tchaikovsky, Pyotr: The Seasons: March, O 37,3", "Tchaikovsky: The_Seasons_Opus_37a_3_March"),
    ("Burgmüller, Friedrich: Etude, Op. 109 No. 4", "Burgmueller: Etudes_Opus_109_Velocity"),
    ("Liszt, Franz: Étude de concert, S. 145", "Liszt: Concert_Etude_S145_1"),
]
DIFFERENT = [
    ("Chopin, Fryderyk: Etude op. 10, no. 6", "Chopin: Etudes_op_10_3"),
    ("Chopin, Fryderyk: Etude op. 100", "Chopin: Etudes_op_10"),
    ("Chopin, Fryderyk: Mazurka in E op. 6, no. 3", "Chopin: Etudes_op_10_3"),
    ("Bach, Johann Sebastian: Sinfonia 7, BWV 793", "Bach: Prelude_bwv_893"),
    ("Bach, CPE: Sonata, BWV 846", "Bach: Prelude_bwv_846"),
    ("Schumann, Clara: Romanze, Op. 15 No. 5", "Schumann: Scenes_Opus_15_5_Happiness"),
    ("Beethoven, Ludwig van: Sonata No. 19, Op. 49, No. 1", "Beethoven: Piano_Sonatas_20-1"),
    ("Beethoven, Ludwig van: Menuett WoO 82", "Beethoven: Piano_Sonatas_21-2"),
    ("Mozart, Wolfgang Amadeus: Gigue, KV 574", "Mozart: Piano_Sonatas_17-1"),
    ("Schubert, Franz: Im Gegenwärtigen Vergangenes, D.710", "Schubert: Piano_Sonatas_784-1"),
    ("Haydn, Joseph: Sonate I, Hob. XVI:27", "Haydn: Keyboard_Sonatas_31-1"),
    ("Debussy, Claude: Clair de lune (song)", "Debussy: Suite_bergamasque_Clair_de_Lune"),
    ("Anonim: Polonaise", "Chopin: Polonaises_53"),
    ("Stefani, Józef: Mazur", "Stefani: Walc"),
]


def work(text: str) -> Work:
    composer, _, title = text.partition(": ")
    return Work(composer, title)


@pytest.mark.parametrize(("title", "listed"), SAME)
def test_the_same_work_is_found(title: str, listed: str) -> None:
    assert work(title).same_as(work(listed))


@pytest.mark.parametrize(("title", "listed"), DIFFERENT)
def test_another_work_is_not(title: str, listed: str) -> None:
    assert not work(title).same_as(work(listed))


def test_composers_are_compared_by_surname_and_initial() -> None:
    assert Work("Fryderyk Chopin", "").surname == Work("Chopin", "").surname == "chopin"
    assert Work("Mendelssohn-Bartholdy, Felix", "").surname == "mendelssohn"
    assert Work("Łodwigowski, Edward Stefan", "").surname == "lodwigowski"
    assert Work("Bach", "").initial == Work("Johann Sebastian Bach", "").initial == "j"


def test_an_entry_may_list_numbers_and_ranges() -> None:
    listed = ListedWorks(["Bach: BWV 846-848, 903", "Chopin: op. 28 no. 3, 15"])
    found = [n for n in (845, 846, 848, 849, 903) if listed.find(Work("Bach", f"Fuga, BWV {n}"))]
    assert found == [846, 848, 903]
    found = [n for n in (2, 3, 15) if listed.find(Work("Chopin, F.", f"Prelude op. 28, no. {n}"))]
    assert found == [3, 15]
    other = listed.find(Work("Bach", "BWV 903"))
    assert other is not None
    assert (str(other[0]), other[1]) == ("Bach: BWV 903", "data.exclude")


def test_of_a_table_with_splits_validation_and_test_count(tmp_path: Path) -> None:
    path = tmp_path / "distinct_pieces.csv"
    path.write_text(
        "id,composer,split,ASAP_title,CPM_title\n1,Chopin,train,Etudes_op_10_1,\n"
        "2,Chopin,test,,Etudes_Opus_10_2\n3,Chopin,validation,Etudes_op_10_3,Other_Opus_25_1\n"
    )
    listed = ListedWorks([str(path)])
    titles = ["op. 10 no. 1", "op. 10 no. 2", "op. 10 no. 3", "op. 25 no. 1"]
    assert [bool(listed.find(Work("Chopin", title))) for title in titles] == [False, True, True, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file, expected a table of works"),
        ("name,title\na,b\n", "has the columns name, title, expected composer and title"),
        (b"\xff\xfe\x00", "is no comma-separated text"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(
    tmp_path: Path, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / "works.csv"
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message):
        ListedWorks([str(path)])


def test_an_entry_that_is_neither_table_nor_work_is_one_sentence() -> None:
    with pytest.raises(UserError, match=r"'metadata' found, expected a table \(FILE\.csv\) or a work"):
        ListedWorks(["metadata"])
