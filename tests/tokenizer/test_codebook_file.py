from __future__ import annotations

import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pianolm.errors import UserError
from pianolm.tokenizer.codebook import LEVEL_FRAMES, Codebook, check_level
from pianolm.tokenizer.codebook_file import Repairs, import_codebook, load_codebook, save_codebook
from pianolm.tokenizer.codebook_fit import complete
from pianolm.tokenizer.vocabulary import Vocabulary
from tests.tokenizer.toys import NOTHING, codebook

SMALL = Vocabulary(l1=30, l2=20, l3=10)
SIZES = (30, 20, 10)


@pytest.fixture(scope="module")
def small() -> Codebook:
    return complete([NOTHING] * 3, SMALL)


def bits_of(book: Codebook) -> list[np.ndarray]:
    """[K, 2, F] bool of each level, sustain first."""
    return [
        np.stack(
            [(mask[:, None] >> np.arange(frames, dtype=np.uint64)) & np.uint64(1) for mask in level], axis=1
        )
        > 0
        for level, frames in zip(book.levels, LEVEL_FRAMES, strict=False)
    ]


def assert_keeps_the_rules(book: Codebook) -> None:
    for level, frames, count in zip(book.levels, LEVEL_FRAMES, SIZES, strict=False):
        check_level("level", level, frames, count)


def test_a_saved_codebook_is_read_back(tmp_path: Path) -> None:
    book = codebook("fitted")
    save_codebook(book, tmp_path / "c.npz")
    again, repairs = import_codebook(tmp_path / "c.npz", book.vocabulary)
    assert again.fingerprint == book.fingerprint
    assert not any(repairs)
    with pytest.raises(UserError, match=r"2048 codes found in l1_sustain, the vocabulary has 100"):
        load_codebook(tmp_path / "c.npz", Vocabulary(l1=100))


@pytest.mark.parametrize("names", ["l{}", "L{}", "centroids_l{}", "centroids_L{}"])
@pytest.mark.parametrize("form", ["flat", "stacked", "centroids"])
def test_one_array_a_level_is_read(small: Codebook, names: str, form: str, tmp_path: Path) -> None:
    levels = bits_of(small)
    if form == "flat":
        levels = [bits.reshape(len(bits), -1) for bits in levels]
    elif form == "centroids":
        rng = np.random.default_rng(0)
        levels = [
            np.where(bits, rng.uniform(0.51, 1, bits.shape), rng.uniform(0, 0.5, bits.shape))
            for bits in levels
        ]
    np.savez(
        tmp_path / "c.npz", **{names.format(n): bits for n, bits in enumerate(levels, 1)}, other=np.arange(3)
    )
    book, repairs = import_codebook(tmp_path / "c.npz", SMALL)
    assert book.fingerprint == small.fingerprint
    assert repairs == Repairs()
    assert repairs.sentence("c.npz") == ""


def test_sustain_alone_is_struck_where_each_run_begins(small: Codebook, tmp_path: Path) -> None:
    levels = [bits[:, 0] for bits in bits_of(small)]
    levels[2][3] = [0, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0]
    np.savez(tmp_path / "c.npz", l1=levels[0], l2=levels[1], l3=levels[2])
    book, repairs = import_codebook(tmp_path / "c.npz", SMALL)
    assert int(book.levels[2].sustain[3]) == 0b001110100110
    assert int(book.levels[2].onset[3]) == 0b000010100010
    assert_keeps_the_rules(book)
    assert repairs.onset_outside_sustain == repairs.unstruck == 0


def test_broken_rules_are_repaired_and_counted_code_by_code(small: Codebook, tmp_path: Path) -> None:
    levels = bits_of(small)
    levels[0][[4, 9]] = levels[0][2]  # two duplicates
    levels[0][5] = False  # silent in L1
    levels[1][0] = levels[1][7]  # L2 loses its silent code and has a duplicate instead
    levels[2][[1, 2]] = False  # two more silent codes in L3
    levels[0][11, 1, 47] = True
    levels[0][11, 0, 47] = False  # an onset outside sustain
    levels[1][3] = np.array([[0] * 12 + [1] * 12, [0] * 24])  # sound that follows silence, not struck
    np.savez(tmp_path / "c.npz", l1=levels[0], l2=levels[1], l3=levels[2])
    book, repairs = import_codebook(tmp_path / "c.npz", SMALL)
    assert repairs == Repairs(onset_outside_sustain=1, unstruck=1, duplicate=3, silent=3, without_silence=1)
    assert_keeps_the_rules(book)
    for level, given, broken in zip(book.levels, small.levels, ([4, 5, 9], [0, 3, 7], [1, 2]), strict=True):
        kept = np.setdiff1d(np.arange(level.sustain.size), broken)
        assert np.array_equal(level.sustain[kept], given.sustain[kept])
        assert np.array_equal(level.onset[kept], given.onset[kept])
    assert int(book.levels[1].sustain[7]) == 0, "the second of two equal codes is replaced, here by silence"
    assert (int(book.levels[1].sustain[3]), int(book.levels[1].onset[3])) == (0xFFF000, 0x1000)
    assert import_codebook(tmp_path / "c.npz", SMALL)[0].fingerprint == book.fingerprint, (
        "always the same way"
    )
    sentence = repairs.sentence("c.npz")
    assert sentence.startswith("c.npz: repaired codes: 1 with onsets outside their sustain, 1 with sound")
    assert "\n" not in sentence


def test_a_level_without_silence_and_duplicates_gives_up_its_last_code(
    small: Codebook, tmp_path: Path
) -> None:
    levels = bits_of(small)
    levels[2][0] = np.array([[1, 0] * 6, [1, 0] * 6])
    np.savez(tmp_path / "c.npz", l1=levels[0], l2=levels[1], l3=levels[2])
    book, repairs = import_codebook(tmp_path / "c.npz", SMALL)
    assert repairs == Repairs(without_silence=1)
    assert int(book.levels[2].sustain[-1]) == 0


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"l2": np.zeros((20, 25))},
            r"c\.npz: array l2 has shape \[20, 25\], expected \[20, 24\], \[20, 48\] or \[20, 2, 24\]",
        ),
        (
            {"l1": np.zeros((2048, 48))},
            r"array l1 has shape \[2048, 48\], expected \[30, 48\].*tokenizer\.vocabulary\.l1 is 30",
        ),
        ({"l3": None}, r"c\.npz: l1, l2 found, expected l1_sustain, .*or one array a level named l1, l2, l3"),
        ({"l1": np.full((30, 48), np.nan)}, "array l1 has values that are not finite"),
        ({"l1": np.array([["a"]])}, r"not a readable \.npz codebook \(an array of type <U1"),
        ({"l1_sustain": np.arange(3)}, r"lacks the array\(s\) l1_onset, l2_sustain"),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(
    small: Codebook, change: dict, match: str, tmp_path: Path
) -> None:
    arrays = {f"l{n}": bits for n, bits in enumerate(bits_of(small), 1)} | change
    np.savez(tmp_path / "c.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(UserError, match=match) as error:
        import_codebook(tmp_path / "c.npz", SMALL)
    assert "\n" not in str(error.value)


def test_damaged_files_are_one_sentence(small: Codebook, tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    (tmp_path / "text.npz").write_text("no archive")
    for missing in (tmp_path / "text.npz", tmp_path / "none.npz", tmp_path):
        with pytest.raises(UserError, match=r"not a readable \.npz"):
            load_codebook(missing, SMALL)
    save_codebook(small, path)
    content, rng = path.read_bytes(), np.random.default_rng(0)
    messages = []
    for _ in range(300):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 3).tolist():
            damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(
            bytes(damaged[: int(rng.integers(1, len(content)))] if rng.random() < 0.3 else damaged)
        )
        try:
            load_codebook(path, SMALL)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) > 150
    assert not any("\n" in message for message in messages)


def test_declared_sizes_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    def member(shape: tuple[int, ...], descr: str) -> bytes:
        header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header

    for names, shape in (
        (("l1", "l2", "l3"), (1 << 40, 48)),
        (tuple(f"l{n}_{m}" for n in (1, 2, 3) for m in ("sustain", "onset")), (1 << 40,)),
    ):
        with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
            for name in names:
                archive.writestr(f"{name}.npy", member(shape, "<u8"))
        tracemalloc.start()
        with pytest.raises(UserError, match=str(1 << 40)):
            load_codebook(tmp_path / "c.npz", SMALL)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
        tracemalloc.stop()
