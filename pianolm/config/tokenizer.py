"""Options of the pattern codebook and the tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field

from pianolm.config.option import option


@dataclass
class CodebookConfig:
    """How the pattern codebook is learned."""

    method: str = option(
        "auto",
        "auto takes the method with the fewest codes per cell.",
        choices=("auto", "frequency", "savings", "kmeans"),
    )


@dataclass
class VocabularyConfig:
    """Number of ids of each kind, in the order of the ids; 4789 in all with BOS, EOS and PAD."""

    l1: int = option(2048, "Number of codes of whole beats.", at_least=1)
    l2: int = option(1024, "Number of codes of half beats.", at_least=1)
    l3: int = option(512, "Number of codes of quarter beats.", at_least=1)
    pitch: int = option(128, "Number of MIDI pitches; always 128.", at_least=128, at_most=128)
    velocity: int = option(512, "Number of velocity codes.", at_least=1)
    reserved: int = option(
        512,
        "Number of reserved ids: 377 eighth-beat patterns, pedal (not used yet), bars, duration bins, tunings, "
        "marks of gaps, controls.",
        at_least=377,
    )
    tempo: int = option(50, "Number of tempo bins.", at_least=1)


@dataclass
class TokenizerConfig:
    """Layout of the tokens; `tokenizer=base|velocity|ties|published` are presets."""

    mode: str = option(
        "velocity", "velocity: each cell has a velocity token; base: none has.", choices=("velocity", "base")
    )
    ties: str = option(
        "repeat",
        "How a note held over a beat line is written. repeat: a cell like any other; implicit: its codes alone; "
        "explicit: duration bin, pitch, codes.",
        choices=("repeat", "implicit", "explicit"),
    )
    bars: bool = option(False, "A token for the position in the bar after each tempo, where bars are known.")
    tempo: str = option(
        "log50",
        "log50: 50 bins from 15 to 480 BPM in equal ratios, rounding errors carried; log50_tuned: on a scale shifted "
        "so that a piece's bin changes least; published: bins of 10 BPM, each beat rounded on its own.",
        choices=("log50", "log50_tuned", "published"),
    )
    exact: bool = option(
        True,
        "true: a quarter beat without an L3 code is written in L4 codes, exactly; false: as the nearest L3 code.",
    )
    vocabulary: VocabularyConfig = field(default_factory=VocabularyConfig)
