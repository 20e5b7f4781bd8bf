"""`PianoLM`: a language model with its tokenizer, ready to generate."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pianolm.errors import UserError
from pianolm.generation.config import GenerationConfig, SamplingSettings
from pianolm.generation.continuation import finished_piece, first_states, music_of
from pianolm.generation.controls import AskedLevels
from pianolm.generation.devices import checked_device
from pianolm.generation.dynamics import render_ids, with_velocities
from pianolm.generation.fill import Filling
from pianolm.generation.generator import Generator
from pianolm.generation.results import GeneratedBeat, GeneratedPiece
from pianolm.generation.sampling import TokenOrder
from pianolm.generation.state import GenerationState
from pianolm.generation.tilt import NoteFeatures
from pianolm.lm.llama import CONTROL_SHARE, FILL_SHARE, Llama, llama_from_weights
from pianolm.lm.model_directory import llama_from_directory
from pianolm.lm.sampling_file import read_sampling
from pianolm.lm.weights_path import check_model_directory
from pianolm.models import model_path
from pianolm.music.gap import Gap, gap_of
from pianolm.music.piece import Piece, as_piece
from pianolm.tokenizer.tokenizer import PianoTokenizer
from pianolm.tokenizer.vocabulary import Kind

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM


class PianoLM:
    """A Llama over piano tokens and the tokenizer it was trained with.

    Args:
        model: The network over the tokenizer's vocabulary, or its sizes and weights. The weights of a network are read
            at the first generation.
        tokenizer: The tokenizer.
        generation_defaults: See the attribute; None for the library's defaults.

    Attributes:
        tokenizer: The tokenizer.
        generation_defaults: How tokens are sampled where a call does not say it: what the model brings along in its
            `generation_config.json`. Its fields that are None have the defaults of `generate=plain`. May be replaced.

    Raises:
        UserError: Their vocabularies differ.
    """

    def __init__(
        self,
        model: LlamaForCausalLM | Llama,
        tokenizer: PianoTokenizer,
        generation_defaults: SamplingSettings | None = None,
    ) -> None:
        size = model.config["vocab_size"] if isinstance(model, Llama) else model.config.vocab_size
        if size != tokenizer.vocabulary.size:
            raise UserError(
                f"the model has {size} ids, the tokenizer {tokenizer.vocabulary.size}; give the tokenizer that the "
                "model was trained with"
            )
        self.tokenizer = tokenizer
        self.generation_defaults = generation_defaults or SamplingSettings()
        self._given = model

    @cached_property
    def model(self) -> LlamaForCausalLM:
        """The network. Generation on a CPU does without it where it was not given and is not asked for."""
        return self._given.network() if isinstance(self._given, Llama) else self._given.eval()

    @classmethod
    def from_pretrained(cls, directory: str | Path, device: str | torch.device = "cpu") -> PianoLM:
        """Reads `config.json`, `model.safetensors` and `tokenizer/` of a published model; no pickle.

        Its sampling settings, where it has some, come from `generation_config.json` (`pianolm.lm.sampling_file`).

        Args:
            directory: A path, the name of a bundled model (`pianolm.models`), such as `pop`, or `user/name` of one
                on the Hugging Face hub.
            device: Where the model runs. Weights are float32 there, whatever they are in the file.

        Raises:
            UserError: A file is missing or unreadable, model and tokenizer do not fit, or there is no such device.
        """
        device, directory = checked_device(device), model_path(directory)
        check_model_directory(directory)
        defaults = SamplingSettings(**read_sampling(directory))
        tokenizer = PianoTokenizer.from_pretrained(directory)
        llama = llama_from_directory(directory, tokenizer.vocabulary)
        lm = cls._on_device(llama, tokenizer, device, str(directory))
        lm.generation_defaults = defaults
        return lm

    @classmethod
    def from_weights(
        cls,
        file: str | Path,
        tokenizer: PianoTokenizer,
        heads: int,
        rope_theta: float = 10_000.0,
        context: int = 512,
        device: str | torch.device = "cpu",
        source: str | None = None,
    ) -> PianoLM:
        """A model from a plain weights file and the tokenizer of its ids.

        Vocabulary, width, layers, feed-forward width and key/value heads follow from the shapes of the tensors; the
        arguments are what shapes do not tell.

        Args:
            file: `.safetensors`, or a PyTorch file (`.pt`, `.pth`, `.bin`, `.ckpt`), which is read weights-only. Its
                tensors are named as in transformers' `LlamaForCausalLM`, after any prefix.
            tokenizer: Its vocabulary has as many ids as the embedding has rows.
            heads: Attention heads.
            rope_theta: Base of the rotary position embedding.
            context: Tokens that the model was trained on at a time.
            device: Where the model runs.
            source: How error messages call the file; None for its path.

        Raises:
            UserError: A tensor is missing, or shapes, heads and vocabulary do not fit together.
        """
        device, source = checked_device(device), str(file) if source is None else source
        llama = llama_from_weights(Path(file), tokenizer.vocabulary, heads, rope_theta, context, source)
        return cls._on_device(llama, tokenizer, device, source)

    @classmethod
    def _on_device(
        cls, llama: Llama, tokenizer: PianoTokenizer, device: str | torch.device, source: str
    ) -> PianoLM:
        try:
            if str(device) == "cpu":
                return cls(llama, tokenizer)
            return cls(llama.network().to(device), tokenizer)  # type: ignore[arg-type]  # transformers wraps `to` and loses its types
        except UserError as error:
            raise UserError(f"{source}: {error}") from error

    @cached_property
    def generator(self) -> Generator:
        """The model as the inference engines hold it, with the weights that it has now."""
        strikes_V = self.tokenizer.strikes_per_id > 0
        model = self.__dict__.get("model", self._given)  # a network that was asked for may have been changed
        return Generator(model, self.tokenizer.grammar, self.tokenizer.tempo, strikes_V)

    @cached_property
    def _note_features(self) -> NoteFeatures:
        return NoteFeatures(self.tokenizer, self.generator.order)

    def generate(
        self,
        prompt: Piece | str | os.PathLike[str] | None = None,
        config: GenerationConfig | None = None,
        *,
        pieces: int = 1,
        with_prompt: bool = True,
        prompt_beats: int | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> list[Piece]:
        """Generates pieces of new music.

        Args:
            prompt: Music to continue from, or the path of its MIDI file. Its bars, where it has some, go on at
                the length of the last one, unless the model's tokens include bars: then the model sets them.
            config: Sampling and length; None for the defaults. Sampling settings that are None are the model's
                (`generation_defaults`), else those of `generate=plain`.
            pieces: Number of pieces.
            with_prompt: Whether the pieces begin with the prompt's beats, which keep their notes and times exactly.
                Without them, a note held over from the prompt begins with the first new beat.
            prompt_beats: n continues from the prompt's first n beats, −n from its last n, None from all of it. The
                model sees as many of the last of these as its context holds.
            seed: The same seed gives the same pieces; the first of several is the one that `pieces=1` gives.
            **settings: Fields of `GenerationConfig` that replace those of `config`: `beats`, `seconds`, `end`,
                `tempo_bpm`, `loudness`, `density`, `temperature`, `top_p`, `top_k`, `min_p`, `repeat`, `by_kind`.

        Returns:
            The pieces. Where one is shorter than asked for, or its prompt does not fit into the context, its `remarks`
            say so.

        Raises:
            UserError: A setting is out of range, or the prompt cannot be read, holds no notes or a beat longer than
                the context.
        """
        generated = self.generate_pieces(
            prompt,
            config,
            pieces=pieces,
            with_prompt=with_prompt,
            prompt_beats=prompt_beats,
            seed=seed,
            **settings,
        )
        return [one.piece for one in generated]

    def generate_pieces(
        self,
        prompt: Piece | str | os.PathLike[str] | Mapping[str, Piece] | None = None,
        config: GenerationConfig | None = None,
        *,
        pieces: int = 1,
        with_prompt: bool = True,
        prompt_beats: int | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> list[GeneratedPiece]:
        """As `generate`, with tokens and timing, and for several prompts at once.

        Args:
            prompt: One prompt, or several by name; the pieces of each prompt are those that it gives alone. A prompt
                that cannot be used is named in the error, before anything is generated.
            config: See `generate`, as for the other arguments.
            pieces: Number of pieces of each prompt.
            with_prompt, prompt_beats, seed, **settings: See `generate`.

        Returns:
            The pieces, prompt by prompt.
        """
        start = time.perf_counter()
        config = self._config(config, settings)
        if pieces < 1:
            raise UserError(f"pieces={pieces} found, expected at least 1")
        states, given = [], []
        named = prompt if isinstance(prompt, Mapping) else {"": None if prompt is None else as_piece(prompt)}
        for name, one in named.items():
            states += self._states(one, prompt_beats, pieces, seed, config, f"prompt {name}".rstrip())
            given += [one] * pieces
        first_beat_sec: dict[int, float] = {}
        for index in self.generator.generate(states, config):
            first_beat_sec.setdefault(index, time.perf_counter() - start)
        return [
            finished_piece(
                self.tokenizer,
                state,
                given[index],
                prompt_beats,
                with_prompt,
                config,
                first_beat_sec[index],
            )
            for index, state in enumerate(states)
        ]

    def stream(
        self,
        prompt: Piece | str | os.PathLike[str] | None = None,
        config: GenerationConfig | None = None,
        *,
        prompt_beats: int | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> Iterator[GeneratedBeat]:
        """The beats of the piece that `generate` gives with `with_prompt=False`, each as soon as it is complete.

        The arguments are those of `generate`; a wrong one raises in this call, not at the first beat.
        """
        config = self._config(config, settings)
        (state,) = self._states(None if prompt is None else as_piece(prompt), prompt_beats, 1, seed, config)
        # the last token after a complete beat is the next beat's tempo, or EOS
        return (
            GeneratedBeat.from_piece(
                music_of(self.tokenizer, state, False, config.tempo_bpm, len(state.ids) - 1), number
            )
            for number, _ in enumerate(self.generator.generate([state], config))
        )

    def render_dynamics(
        self,
        piece: Piece | str | os.PathLike[str],
        temperature: float | None = None,
        top_p: float | None = None,
        seed: int = 0,
        *,
        median_velocity: float | None = None,
        language_model: bool = False,
    ) -> Piece:
        """The same notes with new velocities. The piece's own are ignored, so a flat score gets dynamics.

        They are those of the bundled dynamics model (`pianolm.dynamics.renderer.DynamicsModel`), which reads all
        notes, past and to come. With `language_model=True` this model samples them in the order of its tokens: beat by
        beat, from low to high pitches. Each then depends on everything before it, new velocities included, and on its
        own cell's pattern; later notes, such as higher notes of the same beat, have no influence.

        Args:
            piece: At least one note, or the path of a MIDI file.
            temperature: See `DynamicsModel.render`; None: its default. Of the language model: 0 takes the most likely
                velocity of each; None: as `generate` samples velocities.
            top_p: Of the language model alone: see `pianolm.generation.config.SamplingRule`; None: as `generate`
                samples velocities.
            seed: The same seed gives the same velocities.
            median_velocity: Of the dynamics model alone: how loud the piece is, 1–127; None leaves it to the model.
            language_model: Whether this language model samples the velocities.

        Returns:
            The piece with other velocities. Notes that begin in one frame of 1/48 beat and have one pitch are one note
            of the model, and get one velocity.

        Raises:
            UserError: The piece has no notes, the file cannot be read, an argument is out of range or none of the model
                that plays, or the language model has no velocities.
        """
        piece = as_piece(piece)
        if not language_model:
            if top_p is not None:
                raise UserError(
                    f"render_dynamics: top_p={top_p} found, which the dynamics model does not have; leave it out, or "
                    "add language_model=True"
                )
            return _rendered(piece, temperature, _checked_seed(seed), median_velocity)
        if median_velocity is not None:
            raise UserError(
                f"render_dynamics: median_velocity={median_velocity} found, which a language model cannot be told; "
                "leave it or language_model=True out"
            )
        if self.tokenizer.codec is None:
            raise UserError(
                "render_dynamics: a model of mode base found, whose tokens carry no velocity; give one of "
                "stage=finetune, or leave language_model=True out"
            )
        if piece.notes.size == 0:
            raise UserError("render_dynamics: a piece without notes found, expected at least one")
        config = self._config(None, {"temperature": temperature, "top_p": top_p})
        ids = render_ids(self.generator, self.tokenizer, piece, config, _checked_seed(seed))
        return with_velocities(piece, self.tokenizer.decode(ids))

    @property
    def fills(self) -> bool:
        """Whether the model was trained to fill gaps (`loader.fill_share`)."""
        return self._was_trained_with(FILL_SHARE)

    @property
    def is_controlled(self) -> bool:
        """Whether the model was trained with controls (`loader.control_share`)."""
        return self._was_trained_with(CONTROL_SHARE)

    def _was_trained_with(self, share: str) -> bool:
        given = self._given
        return bool(getattr(given, share) if isinstance(given, Llama) else getattr(given.config, share, 0))

    def fill(
        self,
        piece: Piece | str | os.PathLike[str],
        beats: tuple[int, int],
        pitches: tuple[int, int] | None = None,
        config: SamplingSettings | None = None,
        *,
        pieces: int = 1,
        seed: int = 0,
        **settings: Any,
    ) -> list[Piece]:
        """Writes some beats of a piece anew so that they fit what comes before and after them.

        Notes that begin in these beats are left out. All others stay as they are, also where they sound in these beats,
        and nothing that sounds behind them changes: a new note that reaches their end sounds on as long as the note of
        its pitch did that was left out, else it ends there. Beats and bars stay.

        Args:
            piece: The music, or the path of its MIDI file.
            beats: First beat, from 0, and the beat after the last.
            pitches: Lowest and highest MIDI pitch that is written anew; None for all.
            config: How tokens are sampled; None, also of a setting, is the model's own, else the default.
            pieces: Number of pieces.
            seed: The same seed gives the same pieces; the first of several is the one that `pieces=1` gives.
            **settings: Fields of `SamplingSettings` that replace those of `config`: `temperature`, `top_p`, `top_k`,
                `min_p`, `repeat`, `by_kind`.

        Returns:
            Whole pieces. New notes have the piece's median velocity where all its notes have one velocity, or the model
            writes none.

        Raises:
            UserError: The model was not trained to fill gaps, the piece has no such beats, a setting is out of range or
                one that gaps do not know, such as a length or a level, or the gap takes more than a third of the
                model's context.
        """
        gap = gap_of(as_piece(piece), beats, pitches)
        config = replace(config or SamplingSettings(), **settings)
        return [one.piece for one in self.fill_pieces(as_piece(piece), gap, config, pieces=pieces, seed=seed)]

    def fill_pieces(
        self,
        piece: Piece,
        gap: Gap,
        config: SamplingSettings | None = None,
        *,
        pieces: int = 1,
        seed: int = 0,
        name: str = "fill",
    ) -> list[GeneratedPiece]:
        """As `fill`, with tokens and timing; `name` is how error messages call the gap."""
        start = time.perf_counter()
        if not self.fills:
            raise UserError(
                "fill: this model was not trained to fill gaps; give one that was trained with loader.fill_share above "
                "0, such as 0.3"
            )
        if isinstance(config, GenerationConfig) and config.changed_beyond_sampling:
            found = " and ".join(config.changed_beyond_sampling)
            raise UserError(
                f"fill: {found} found, but a gap has its own length, tempo and loudness; give sampling settings alone"
            )
        if pieces < 1:
            raise UserError(f"pieces={pieces} found, expected at least 1")
        sampling = (config or SamplingSettings()).over(self.generation_defaults).sampling
        filling = Filling(self.tokenizer, piece, gap, self.fill_order, self.generator.context, name)
        states = filling.states(pieces, _checked_seed(seed))
        first_beat_sec: dict[int, float] = {}
        for index in self.generator.generate(states, GenerationConfig(**sampling, beats=gap.n_beats)):
            first_beat_sec.setdefault(index, time.perf_counter() - start)
        return [filling.finished(state, first_beat_sec[index]) for index, state in enumerate(states)]

    @cached_property
    def fill_order(self) -> TokenOrder:
        """The order of the ids in which logits are given where gaps are filled."""
        return TokenOrder(self.tokenizer.fill_grammar, self.tokenizer.tempo)

    def _config(self, config: GenerationConfig | None, settings: Mapping[str, Any]) -> GenerationConfig:
        """The complete settings of a call."""
        return replace(config or GenerationConfig(), **settings).over(self.generation_defaults)

    def _states(
        self,
        prompt: Piece | None,
        prompt_beats: int | None,
        pieces: int,
        seed: int,
        config: GenerationConfig,
        name: str = "prompt",
    ) -> list[GenerationState]:
        """The pieces of a prompt before their first new token."""
        levels = config.controls
        if Kind.LOUDNESS in levels and self.tokenizer.codec is None:
            raise UserError(
                "loudness: a model of mode base found, whose tokens carry no velocity; give one of stage=finetune, or "
                "ask for density alone"
            )
        asked = AskedLevels(levels, self._note_features, self.is_controlled) if levels else None
        context, seed = self.generator.context, _checked_seed(seed)
        return first_states(self.tokenizer, context, prompt, prompt_beats, pieces, seed, asked, name)


def _checked_seed(seed: int) -> int:
    if seed < 0:
        raise UserError(f"seed={seed} found, expected a whole number of at least 0")
    return seed


def _rendered(piece: Piece, temperature: float | None, seed: int, median_velocity: float | None) -> Piece:
    """The piece with velocities of the bundled dynamics model."""
    from pianolm.dynamics.renderer import DynamicsModel  # torch, which language models do without

    return DynamicsModel.from_pretrained().render(piece, temperature, seed, median_velocity)
