"""Induction initialisation: attention of a fresh Llama starts as copying and induction heads (`model.init=induction`).

Music repeats. Copying heads raise the probability of tokens that occurred before in the window; induction heads raise
that of tokens that followed the last occurrence of the current context. Trained models develop both, but only after
more than their first hundred thousand notes; `experiments/codebook-embedding` and `experiments/tokenizer-comparison`
measure what starting with them brings. Only initial values are set: all weights then train as usual. The output layer
has to be tied to the embedding.

With D the width and S the values per head, embeddings initially use only their first N = D − 2 S dimensions and the
last one, which has the same value for every token. The other dimensions of the residual stream are a scratch area:
heads of the first layer write the current token and its predecessor there, so that heads of later layers can compare
tokens without disturbing the logits.

Shapes: V ids, D width, S values per head, N see above, n rows of a weight matrix, k tokens back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaAttention

from pianolm.lm.embedding import CodebookEmbedding

COPY_GAIN = 4.0
"""Factor between what a copying head attends to and what it adds to the residual stream."""
NOTE_GAIN = 2.0
"""The same factor of the heads that write tokens into the scratch area."""
REACH = 3
"""Tokens of context that an induction head compares in all; a model of two layers compares one."""
NEIGHBOUR = 6.0
"""Drop of an attention logit from the position that a head attends to, to the positions beside it."""
MATCH = 6.3
"""Attention logit that an induction head gives to an equal token."""
MIN_HEAD_SIZE = 32
"""Values per head that induction heads need to compare tokens."""
_MEAN_NORM = 0.35
"""Approximate norm of a mean of unit embeddings."""


def initialize_induction(model: LlamaForCausalLM) -> None:
    """Sets weights of a fresh model to induction heads, or to copying heads alone if it is too small for those.

    Args:
        model: Changed in place; its output layer is tied to its embedding.
    """
    config = model.config
    heads = config.num_attention_heads
    own_keys = config.num_key_value_heads == heads
    if (
        heads >= 4
        and own_keys
        and config.num_hidden_layers > 1
        and config.hidden_size >= MIN_HEAD_SIZE * heads
    ):
        initialize_induction_heads(model)
    else:
        initialize_copying(model.model.layers[0].self_attn)


@torch.no_grad()
def initialize_copying(attention: LlamaAttention) -> None:
    """Sets weights with which an attention layer adds `COPY_GAIN` times what it attends to.

    Fresh attention weights are nearly uniform, so in the first layer this adds the mean of the embeddings so far. The
    output layer is the embedding; tokens that occurred before, and similar ones, therefore become more probable.
    Values and output are an orthogonal matrix and its transpose, a product that Trockman and Kolter ("Mimetic
    Initialization of Self-Attention Layers", 2023) found in trained models.

    Args:
        attention: Changed in place; heads that share values copy the same dimensions.
    """
    values, output = attention.v_proj.weight, attention.o_proj.weight
    size, shared = attention.head_dim, attention.num_key_value_groups
    nn.init.orthogonal_(values, math.sqrt(COPY_GAIN))
    heads_SD = values.view(-1, size, values.shape[1]).repeat_interleave(shared, dim=0)
    output.copy_(heads_SD.flatten(0, 1).T / shared)


@torch.no_grad()
def initialize_induction_heads(model: LlamaForCausalLM, reach: int = REACH) -> None:
    """Sets weights to copying heads and induction heads.

    An induction head (Olsson et al., "In-context Learning and Induction Heads", 2022) takes two layers. In the first
    layer all heads but two copy, as in `initialize_copying`; the last two write the current token and the token before
    it into the scratch area. From there, heads of the second layer fetch the tokens 2 and 3 back. For k from 1 to
    `reach`, one head of layer k after the first (or of the last layer) compares the token k − 1 back, at the query,
    with the token k back, at the key; it attends to positions where the two are equal and adds their tokens to the
    residual stream. The last three tokens of a cell are its pitch, a code and its velocity.

    Args:
        model: Changed in place. Its output layer is tied to its embedding; it has at least 4 heads of at least 32
            values, and heads share no keys. Dropout of attention should be 0: induction fails at dropped positions.
        reach: Tokens of context that are compared; of a model of two layers, one.
    """
    layers = [layer.self_attn for layer in model.model.layers]
    reach = reach if len(layers) > 2 else 1
    assert reach <= REACH, "the scratch area has room for REACH earlier tokens"
    frequencies = model.model.rotary_emb.inv_freq
    stream = _ResidualStream(model.config.hidden_size, layers[0].head_dim, reach)
    _restrict_embeddings(model, stream.room)
    copy_ND, view_SD = (_orthogonal(rows, stream, like=layers[0]) for rows in (stream.room, stream.size - 1))
    norms = _initialize_first_layer(layers[0], stream, copy_ND, view_SD, frequencies)
    total = math.hypot(*norms, COPY_GAIN * stream.embedding_norm * _MEAN_NORM)
    for number, layer in enumerate(layers[1 : reach + 1], 1):
        compared = [k for k in range(1, reach + 1) if min(k, len(layers) - 1) == number]
        fetched = range(2, reach + 1) if number == 1 else range(0)
        total = _initialize_later_layer(layer, stream, view_SD, frequencies, compared, fetched, norms, total)


class _ResidualStream:
    """Use of the D dimensions of the residual stream.

    Attributes:
        room: N, dimensions of embeddings and logits.
        part: Dimensions of each earlier token in the scratch area.
        previous: End of the current token in the scratch area, which starts at N, and start of the token before.
        scratch: First dimension of the token k back, for k from 0.
        heads: First values of all heads, the last head first.
        embedding_norm: Of a token and of the constant at the first layer: each is half of an embedding of norm √D.
    """

    def __init__(self, width: int, size: int, reach: int) -> None:
        self.width, self.size = width, size
        self.room, self.part = width - 2 * size, size // REACH
        self.previous = self.room + size - 1
        self.scratch = [self.room, *range(self.previous, self.previous + self.part * reach, self.part)]
        self.heads = range(width - size, -1, -size)
        self.embedding_norm = math.sqrt(width / 2)


class _Norms(NamedTuple):
    """Norms in the residual stream after the first layer: of a compared part, of a whole token, of the constant."""

    part: float
    token: float
    constant: float


def _initialize_first_layer(
    layer: LlamaAttention, stream: _ResidualStream, copy_ND: Tensor, view_SD: Tensor, frequencies: Tensor
) -> _Norms:
    """All heads copy, but the last two write the current token and the one before it into the scratch area."""
    room, part, previous = stream.room, stream.part, stream.previous
    last, second_last = stream.heads[:2]
    constant_1D = torch.eye(stream.width).to(view_SD)[-1:]
    token_SD = torch.cat([view_SD, 0.5 * constant_1D])
    _set_values(layer, 0, copy_ND, COPY_GAIN, range(room), copy_ND[:, :room].T)
    _set_values(layer, second_last, token_SD, NOTE_GAIN, [*range(room, previous), stream.width - 1])
    _set_values(layer, last, view_SD[:part], NOTE_GAIN, range(previous, previous + part))
    for head, back in ((second_last, 0), (last, 1)):
        _attend_back(layer, head, back, stream.embedding_norm, frequencies)
    norm = NOTE_GAIN * stream.embedding_norm
    return _Norms(norm * math.sqrt(part / room), norm * math.sqrt((stream.size - 1) / room), norm / 2)


def _initialize_later_layer(
    layer: LlamaAttention,
    stream: _ResidualStream,
    view_SD: Tensor,
    frequencies: Tensor,
    compared: Sequence[int],
    fetched: Sequence[int],
    norms: _Norms,
    total: float,
) -> float:
    """Heads that compare the token k − 1 back with the token k back, and heads that fetch the token k back.

    Args:
        layer: Changed in place.
        stream: Use of its dimensions.
        view_SD: Directions of the embeddings that tokens are written with.
        frequencies: Of RoPE.
        compared: Each k to compare.
        fetched: Each k to fetch.
        norms: Of what the first layer wrote.
        total: Norm of the residual stream before the layer.

    Returns:
        Norm of the residual stream after it.
    """
    room, part, previous, scratch = stream.room, stream.part, stream.previous, stream.scratch
    basis_DD = torch.eye(stream.width).to(view_SD)
    scale = math.sqrt(stream.width) / total  # of the layer norm
    heads = iter(stream.heads)
    for k, head in zip(compared, heads, strict=False):
        _compare(layer, head, scratch[k - 1 : k + 1], part, norms.part * scale)
        _set_values(layer, head, basis_DD[room:previous], COPY_GAIN, range(room), view_SD[:, :room].T)
        total = math.hypot(total, COPY_GAIN * norms.token * scale / 2)  # half: several positions may match
    for k, head in zip(fetched, heads, strict=False):
        _attend_back(layer, head, k - 1, norms.constant * scale, frequencies)
        previous_nD = basis_DD[previous : previous + part]
        _set_values(layer, head, previous_nD, 1 / scale, range(scratch[k], scratch[k] + part))
        total = math.hypot(total, norms.part)
    return total


def _restrict_embeddings(model: LlamaForCausalLM, room: int) -> None:
    """Restricts fresh embeddings to their first N dimensions, keeping norms, and sets the last one to a constant."""
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
    table_VD[:, -1] = config.initializer_range * math.sqrt(
        config.hidden_size
    )  # the norm of the other dimensions
    if isinstance(embedding, nn.Embedding) and embedding.padding_idx is not None:
        table_VD[embedding.padding_idx] = 0


def _orthogonal(rows: int, stream: _ResidualStream, like: LlamaAttention) -> Tensor:
    """[rows, D] orthonormal rows that are zero beyond the first N dimensions, on the device of a layer."""
    weight = like.v_proj.weight
    rows_nN = nn.init.orthogonal_(weight.new_empty(rows, stream.room))
    return torch.cat([rows_nN, weight.new_zeros(rows, stream.width - stream.room)], dim=1)


def _set_values(
    attention: LlamaAttention,
    head: int,
    read_nD: Tensor,
    gain: float,
    dimensions: Sequence[int],
    write_pn: Tensor | None = None,
) -> None:
    """Sets values and output of one or more heads: they read rows and write them to the residual stream.

    Args:
        attention: Changed in place; earlier values and outputs of these heads are overwritten.
        head: First value of the head, or of the first head if `read_nD` has more rows than a head has values.
        read_nD: Directions of the residual stream that the values are projections onto.
        gain: Factor between what is read and what is written.
        dimensions: The p dimensions of the residual stream that are written.
        write_pn: Output matrix; None writes value i to dimension i.
    """
    rows, size = len(read_nD), attention.head_dim
    whole, used = slice(head, head + max(rows, size)), slice(head, head + rows)
    attention.v_proj.weight[whole], attention.o_proj.weight[:, whole] = 0, 0
    attention.v_proj.weight[used] = math.sqrt(gain) * read_nD
    write_pn = torch.eye(rows).to(read_nD) if write_pn is None else write_pn
    attention.o_proj.weight[list(dimensions), used] = math.sqrt(gain) * write_pn


def _attend_back(
    attention: LlamaAttention, head: int, back: int, constant: float, frequencies: Tensor
) -> None:
    """Makes a head attend to the position a fixed number of tokens back, whatever the token there.

    Queries and keys are constants in the quarter of RoPE's pairs with the highest frequencies, so that only the
    distance between positions counts. With heads of 32 values, which leave four pairs, some distant positions also
    score high.

    Args:
        attention: Changed in place.
        head: First value of the head.
        back: Number of tokens.
        constant: Value of the last dimension at the input of the layer, after its norm.
        frequencies: [S / 2] angles by which RoPE rotates each pair from position to position.
    """
    half = frequencies.numel()
    pairs = half // 4
    angle = frequencies[:pairs]
    drop = (1 - angle.cos()).sum() / math.sqrt(attention.head_dim)
    length = torch.sqrt(NEIGHBOUR / drop) / constant
    attention.q_proj.weight[head : head + pairs, -1] += length * (back * angle).cos()
    attention.q_proj.weight[head + half : head + half + pairs, -1] -= length * (back * angle).sin()
    attention.k_proj.weight[head : head + pairs, -1] += length


def _compare(attention: LlamaAttention, head: int, starts: Sequence[int], part: int, norm: float) -> None:
    """Makes a head attend to positions where one part of the residual stream equals another part at the query.

    The comparison uses the third of RoPE's pairs with the lowest frequencies, so that it holds at a distance.

    Args:
        attention: Changed in place.
        head: First value of the head.
        starts: First dimension of the part that queries read, and of the part that keys read.
        part: Dimensions of a part.
        norm: Norm of a part at the input of the layer, after its norm.
    """
    size = attention.head_dim
    pairs = part // 2
    rows = [head + end - pairs + pair for end in (size // 2, size) for pair in range(pairs)]
    expected = norm**2 * 2 * pairs / part / math.sqrt(size)
    identity = math.sqrt(MATCH / expected) * torch.eye(2 * pairs).to(attention.q_proj.weight)
    for weight, start in zip((attention.q_proj.weight, attention.k_proj.weight), starts, strict=True):
        weight[rows, start : start + 2 * pairs] += identity
