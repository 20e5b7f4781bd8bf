"""What the weights of a fresh Llama say before it has learned anything: that music repeats.

A model whose embeddings are tied to its output layer can begin by expecting what a piece has held so far
(`begin_by_copying`), and what has followed tokens like the last ones (`begin_by_looking_up`). It would find both out,
but not within its first hundred thousand notes. What that brings is in `experiments/codebook-embedding` and
`experiments/tokenizer-comparison`. Everything here only sets weights, which then learn like all others.

Shapes: V ids, D width, S values a head, N = D − 2 S dimensions that embeddings say something in at
first, k places back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

from pianolm.lm.embedding import CodebookEmbedding

COPY_GAIN = 4.0
"""How much of what a head attends to it passes on, where it copies."""
NOTE_GAIN = 2.0
"""How much of a token the heads write down that note which it was."""
REACH = 3
"""How many tokens back a fresh model compares; with two layers, one."""
NEIGHBOUR = 6.0
"""By how much the logarithm of a weight falls from the place that a head attends to, to the places beside it."""
MATCH = 6.3
"""What likeness adds to the logarithm of a weight, where a head looks up what followed."""
LEAST_HEAD = 32
"""Values of a head that is large enough to compare tokens by."""
_MEAN_NORM = 0.35
"""Rough norm of the mean of what is in a window, each of norm 1."""


def begin(model: LlamaForCausalLM) -> None:
    """Sets weights of a fresh model: so that it looks up where it has the heads for it, and copies where not.

    Args:
        model: Changed in place; its embeddings are tied.
    """
    config = model.config
    heads = config.num_attention_heads
    alone = config.num_key_value_heads == heads
    if heads >= 4 and alone and config.num_hidden_layers > 1 and config.hidden_size >= LEAST_HEAD * heads:
        begin_by_looking_up(model)
    else:
        begin_by_copying(model.model.layers[0].self_attn)


@torch.no_grad()
def begin_by_copying(attention: LlamaAttention) -> None:
    """Weights with which an attention passes on what it attends to as it is, `COPY_GAIN` times.

    At first it attends to everything before alike. In the first layer that is the mean of the embeddings, each as its
    norm scales it, and as the output layer is the embedding, what a piece has held so far becomes likelier to come, and
    so does what is like it. Values and output are an orthogonal matrix and its transpose; Trockman and Kolter ("Mimetic
    Initialization of Self-Attention Layers", 2023) found such products in trained models.

    Args:
        attention: Changed in place; heads that share values pass on the same part.
    """
    values, output = attention.v_proj.weight, attention.o_proj.weight
    size, shared = attention.head_dim, attention.num_key_value_groups
    nn.init.orthogonal_(values, math.sqrt(COPY_GAIN))
    heads_SD = values.view(-1, size, values.shape[1]).repeat_interleave(shared, dim=0)
    output.copy_(heads_SD.flatten(0, 1).T / shared)


@torch.no_grad()
def begin_by_looking_up(model: LlamaForCausalLM, reach: int = REACH) -> None:
    """Weights with which a model copies, and looks up what followed tokens like the last ones.

    Such induction heads (Olsson et al., "In-context Learning and Induction Heads", 2022) form in trained models, of two
    layers each. Here all but two heads of the first layer copy, as in `begin_by_copying`; the last two write down what
    the token is and what stood before it. From there heads of the second layer fetch what stood 2 and 3 back. For k
    from 1 to `reach`, a head of the k-th layer after the first, or of the last one, compares what stood k − 1 before
    the token with what stood k before every other, attends to those where they are alike, and passes on which tokens
    these are. Of a cell the three are its pitch, a code and the velocity.

    Embeddings begin in N dimensions, so that what is written down, in the other 2 S, does not disturb the logits. The
    last dimension has the same value in all of them: by it a head can attend to a place, whatever stands there.

    Args:
        model: Changed in place; its embeddings are tied, it has 4 heads or more of 32 values or more, and none shares
            keys. Attention without dropout: a place that a head drops is one that no later head finds.
        reach: How many tokens back are compared; of a model of two layers, one.
    """
    layers = [layer.self_attn for layer in model.model.layers]
    width, size = model.config.hidden_size, layers[0].head_dim
    turns, room = model.model.rotary_emb.inv_freq, width - 2 * size
    reach, each = reach if len(layers) > 2 else 1, size // REACH
    assert reach <= REACH, "each place back has its dimensions"
    before = room + size - 1
    noted = [room, *range(before, before + each * reach, each)]  # where what stood k places back stands
    last, second_last = width - size, width - 2 * size  # the first values of these heads
    _make_room(model, room)

    like = layers[0].v_proj.weight
    copy_ND, view_SD = (_orthogonal(rows, room, width, like) for rows in (room, size - 1))
    basis_DD = torch.eye(width).to(like)
    own_SD = torch.cat([view_SD, 0.5 * basis_DD[-1:]])  # and half of the constant
    _pass_on(layers[0], 0, copy_ND, COPY_GAIN, range(room), copy_ND[:, :room].T)
    _pass_on(layers[0], second_last, own_SD, NOTE_GAIN, [*range(room, before), width - 1])
    _pass_on(layers[0], last, view_SD[:each], NOTE_GAIN, range(noted[1], noted[1] + each))
    shown = math.sqrt(width / 2)  # of an embedding, scaled to norm √D: what it says, and the constant
    for head, back in ((second_last, 0), (last, 1)):
        _attend_at(layers[0], head, back, shown, turns)

    # norms in the residual stream: of a token as it is compared, as it is passed on, of the constant, and of all
    note, whole = (NOTE_GAIN * shown * math.sqrt(part / room) for part in (each, size - 1))
    constant = NOTE_GAIN / 2 * shown
    total = math.hypot(note, whole, constant, COPY_GAIN * shown * _MEAN_NORM)
    for number, layer in enumerate(layers[1 : reach + 1], 1):
        seen = math.sqrt(width) / total
        compared = [k for k in range(1, reach + 1) if min(k, len(layers) - 1) == number]
        fetched = range(2, reach + 1) if number == 1 else range(0)
        heads = iter(range(last, -1, -size))
        for k, head in zip(compared, heads, strict=False):
            _compare(layer, head, noted[k - 1 : k + 1], each, note * seen)
            _pass_on(layer, head, basis_DD[room:before], COPY_GAIN, range(room), view_SD[:, :room].T)
            total = math.hypot(total, COPY_GAIN * whole * seen / 2)  # rarely of one token only: half of it
        for k, head in zip(fetched, heads, strict=False):
            _attend_at(layer, head, k - 1, constant * seen, turns)
            there_nD = basis_DD[noted[1] : noted[1] + each]
            _pass_on(layer, head, there_nD, 1 / seen, range(noted[k], noted[k] + each))
            total = math.hypot(total, note)


def _make_room(model: LlamaForCausalLM, room: int) -> None:
    """Keeps fresh embeddings to their first N dimensions, their norm as it was, and gives all one value in the last."""
    config, embedding = model.config, model.get_input_embeddings()
    rows_xD: Tensor
    table_VD: Tensor
    if isinstance(embedding, CodebookEmbedding):
        rows_xD, table_VD = embedding.projection.weight.T, embedding.free
    else:
        assert isinstance(embedding, nn.Embedding)
        rows_xD = table_VD = embedding.weight
    rows_xD[:, room:] = 0
    rows_xD *= math.sqrt(config.hidden_size / room)
    table_VD[:, -1] = config.initializer_range * math.sqrt(config.hidden_size)  # as long as the rest of a row
    if isinstance(embedding, nn.Embedding) and embedding.padding_idx is not None:
        table_VD[embedding.padding_idx] = 0


def _orthogonal(rows: int, room: int, width: int, like: Tensor) -> Tensor:
    """[rows, D] orthonormal rows that are zero beyond the first N dimensions."""
    made_nN = nn.init.orthogonal_(like.new_empty(rows, room))
    return torch.cat([made_nN, like.new_zeros(rows, width - room)], dim=1)


def _pass_on(
    attention: LlamaAttention,
    head: int,
    reads_nD: Tensor,
    gain: float,
    places: Sequence[int],
    writes_pn: Tensor | None = None,
) -> None:
    """Lets values from `head` on pass on what rows read, so many times, to places of the residual stream.

    Args:
        attention: Changed in place; nothing else is left of the head, or of the heads where rows fill several.
        head: Its first value.
        reads_nD: What each value is.
        gain: How many times.
        places: The p dimensions that are written to.
        writes_pn: How; None: each value to its place.
    """
    rows, size = len(reads_nD), attention.head_dim
    whole, used = slice(head, head + max(rows, size)), slice(head, head + rows)
    attention.v_proj.weight[whole], attention.o_proj.weight[:, whole] = 0, 0
    attention.v_proj.weight[used] = math.sqrt(gain) * reads_nD
    writes_pn = torch.eye(rows).to(reads_nD) if writes_pn is None else writes_pn
    attention.o_proj.weight[list(places), used] = math.sqrt(gain) * writes_pn


def _attend_at(attention: LlamaAttention, head: int, back: int, constant: float, turns: Tensor) -> None:
    """Lets a head attend so many tokens back, whatever stands there.

    Its queries and keys are constant in a quarter of the pairs that RoPE turns, the fastest: how near a token is to the
    place is then all that counts. With heads of 32 values, where these are four, some places far off look near.

    Args:
        attention: Changed in place.
        head: Its first value.
        back: How many tokens.
        constant: What the last dimension holds, as the layer sees it.
        turns: [S / 2] by how much RoPE turns each pair from place to place.
    """
    half = turns.numel()
    pairs = half // 4
    turn = turns[:pairs]
    falls = (1 - turn.cos()).sum() / math.sqrt(attention.head_dim)
    length = torch.sqrt(NEIGHBOUR / falls) / constant
    attention.q_proj.weight[head : head + pairs, -1] += length * (back * turn).cos()
    attention.q_proj.weight[head + half : head + half + pairs, -1] -= length * (back * turn).sin()
    attention.k_proj.weight[head : head + pairs, -1] += length


def _compare(attention: LlamaAttention, head: int, starts: Sequence[int], each: int, norm: float) -> None:
    """Lets a head attend to where one part of the residual stream is like another part at the query.

    The comparison is of values in the third of the pairs that RoPE turns the slowest, so that it holds at a distance.

    Args:
        attention: Changed in place.
        head: Its first value.
        starts: Where the part of queries and that of keys begins.
        each: Dimensions of a part.
        norm: Of a part, as the layer sees it.
    """
    size = attention.head_dim
    pairs = each // 2
    rows = [head + end - pairs + pair for end in (size // 2, size) for pair in range(pairs)]
    expected = norm**2 * 2 * pairs / each / math.sqrt(size)
    same = math.sqrt(MATCH / expected) * torch.eye(2 * pairs).to(attention.q_proj.weight)
    for weight, start in zip((attention.q_proj.weight, attention.k_proj.weight), starts, strict=True):
        weight[rows, start : start + 2 * pairs] += same
