"""Tokenizer of a pianolm model for transformers: MIDI files, pieces and notes to ids, and ids to pieces.

    tokenizer = AutoTokenizer.from_pretrained(PATH, trust_remote_code=True)

Needs pianolm installed, which does the work; this file only speaks to transformers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import BatchEncoding, PreTrainedTokenizer

from pianolm import PianoTokenizer, Piece
from pianolm.tokenizer.grammar_table import Phase
from pianolm.tokenizer.vocabulary import Kind


class PianoLMTokenizer(PreTrainedTokenizer):
    """Piano music as ids.

    Args:
        settings_file: `tokenizer/tokenizer.json` of the model; the other files lie beside it.
        codebook_file: Named so that transformers fetches it, as the following.
        codec_file: Only of models with velocities.
        codec_settings_file: Likewise.
        **kwargs: Of `tokenizer_config.json`.

    Attributes:
        pianolm: The tokenizer of pianolm.
    """

    vocab_files_names = {  # noqa: RUF012  # the form that transformers reads
        "settings_file": "tokenizer/tokenizer.json",
        "codebook_file": "tokenizer/codebook.npz",
        "codec_file": "tokenizer/velocity/codec.safetensors",
        "codec_settings_file": "tokenizer/velocity/config.json",
    }
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(
        self,
        settings_file: str | None = None,
        codebook_file: str | None = None,
        codec_file: str | None = None,
        codec_settings_file: str | None = None,
        **kwargs: Any,
    ) -> None:
        if settings_file is None or codebook_file is None:
            raise ValueError(
                "no tokenizer/ with tokenizer.json and codebook.npz found; give a model as exported"
            )
        self.pianolm = PianoTokenizer.from_pretrained(Path(settings_file).parent)
        describe = self.pianolm.vocabulary.describe
        self._names = [describe(token) for token in range(self.pianolm.vocabulary.size)]
        self._id_of_name = {name: token for token, name in enumerate(self._names)}
        marks = {"bos_token": "BOS", "eos_token": "EOS", "pad_token": "PAD"}
        super().__init__(**{**kwargs, **marks})

    def __call__(
        self,
        music: Any,
        *,
        beats: Any = "auto",
        add_eos_token: bool = False,
        padding: bool | str = False,
        return_tensors: str | None = None,
    ) -> BatchEncoding:
        """Ids and attention mask of one piece, or of a list of them.

        Args:
            music: See `encode`.
            beats: See `encode`.
            add_eos_token: See `encode`.
            padding: True fills shorter pieces with PAD on their left.
            return_tensors: `pt` or `np` for arrays [pieces, tokens]; None for lists.
        """
        several = isinstance(music, (list, tuple))
        rows = [self.encode(one, beats, add_eos_token) for one in (music if several else [music])]
        as_batch = several or return_tensors is not None
        found: dict[str, Any] = {"input_ids": rows if as_batch else rows[0]}
        return self.pad(found, padding=padding, return_tensors=return_tensors, return_attention_mask=True)

    def encode(self, music: Any, beats: Any = "auto", add_eos_token: bool = False) -> list[int]:
        """Ids of one piece, BOS first.

        Args:
            music: Path of a MIDI file, `pianolm.Piece`, or an array of notes with the fields of `Piece.notes`.
            beats: For a file as in `Piece.from_midi`; for notes an array of beat times in seconds.
            add_eos_token: Whether EOS follows, as in training; a piece to be continued has none.
        """
        ids: list[int] = self.pianolm.encode(_piece(music, beats)).ids.tolist()
        return ids if add_eos_token else ids[:-1]

    def decode(self, token_ids: Any) -> Any:  # type: ignore[override]  # the result is no text
        """The piece (`pianolm.Piece`) of ids [T], or the pieces of ids [pieces, T]; `to_midi` writes it."""
        ids = token_ids.tolist() if hasattr(token_ids, "tolist") else list(token_ids)
        if ids and isinstance(ids[0], Sequence):
            return [self.decode(row) for row in ids]
        return self.pianolm.decode([token for token in ids if token != self.pianolm.vocabulary.pad])

    def batch_decode(self, sequences: Any) -> list[Any]:  # type: ignore[override]  # likewise
        """The pieces of several sequences."""
        return [self.decode(row) for row in sequences]

    def grammar(self, inputs: Any) -> Callable[[int, Any], list[int]]:
        """What `model.generate` takes as `prefix_allowed_tokens_fn`, so that it only samples well-formed music.

        Args:
            inputs: What `generate` continues: the result of a call, or ids [pieces, T].
        """
        ids = inputs["input_ids"] if hasattr(inputs, "keys") else inputs
        return _Grammar(self.pianolm, len(ids[0]))

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self._names)

    def get_vocab(self) -> dict[str, int]:
        """Ids by name, such as `pitch 60`."""
        return dict(self._id_of_name)

    def _convert_id_to_token(self, index: int) -> str:
        return self._names[index]

    def _convert_token_to_id(self, token: str) -> int:
        return self._id_of_name[token]

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes `tokenizer/`."""
        folder = Path(save_directory) / "tokenizer"
        self.pianolm.save_pretrained(folder)
        return tuple(str(path) for path in sorted(folder.rglob("*")) if path.is_file())

    def _no_text(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(
            "this tokenizer reads and writes piano music, not text: call it with the path of a MIDI file, a "
            "pianolm.Piece or notes, and get a piece back with decode"
        )

    tokenize = _tokenize = convert_tokens_to_string = _no_text
    apply_chat_template = encode_message_with_chat_template = get_chat_template = parse_response = _no_text


def _piece(music: Any, beats: Any) -> Piece:
    if isinstance(music, Piece):
        return music
    if isinstance(music, (str, os.PathLike)):
        if not Path(music).is_file():
            raise ValueError(
                f"{str(music)!r}: no such MIDI file; this tokenizer reads MIDI files, pieces and notes, not text"
            )
        return Piece.from_midi(Path(music), beats)
    fields = getattr(getattr(music, "dtype", None), "names", None) or ()
    if not {"onset_sec", "offset_sec", "pitch", "velocity"} <= set(fields) or isinstance(beats, str):
        raise ValueError(
            f"{type(music).__name__} found, expected the path of a MIDI file, a pianolm.Piece, or an array of notes "
            "with the fields of Piece.notes, together with beats=[…] in seconds"
        )
    return Piece.from_notes(music, np.asarray(beats, np.float64))


class _Grammar:
    """The ids that may come next, for a prompt of `width` ids; the first new ones begin a beat, as in pianolm."""

    def __init__(self, tokenizer: PianoTokenizer, width: int) -> None:
        self._grammar, self._width = tokenizer.grammar, width
        vocabulary = self._grammar.vocabulary
        self._pad, self._is_tempo = vocabulary.pad, vocabulary.kind_of == Kind.TEMPO
        self._can_come = np.ones(vocabulary.size, bool)
        self._can_come[vocabulary.ids(Kind.TEMPO)] = tokenizer.tempo.in_grid
        self._read: dict[int, tuple[list[int], Any]] = {}

    def __call__(self, batch_id: int, sent: Any) -> list[int]:
        ids: list[int] = sent.tolist()
        state = self._state(batch_id, ids)
        if state.phase == Phase.ENDED:
            return [self._pad]
        allowed = self._grammar.allowed(state) & self._can_come
        if state.between_cells and not any(self._is_tempo[token] for token in ids[self._width :]):
            allowed = allowed & self._is_tempo
        return np.flatnonzero(allowed).tolist()

    def _state(self, row: int, ids: list[int]) -> Any:
        """The grammar's state after the ids of a row, from that of the call before where they go on from there."""
        before, state = self._read.get(row, ([], self._grammar.start()))
        if ids[: len(before)] != before:
            before, state = [], self._grammar.start()
        for token in ids[len(before) :]:
            if token != self._pad:
                state = self._grammar.advance(state, token)
        self._read[row] = ids, state
        return state
