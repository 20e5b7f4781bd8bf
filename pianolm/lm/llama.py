"""A Llama as files hold it: its sizes, and its weights as arrays.

Torch and transformers, whose import takes seconds, are imported for a network only, and generation on a CPU needs none
(`pianolm.generation.engine.llama_weights`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, deserialize

from pianolm.errors import UserError
from pianolm.lm.weight_names import (
    EMBEDDING,
    HEAD,
    NamedWeights,
    and_more,
    depth,
    refuse_missing,
    rename_tensors,
)
from pianolm.lm.weights_path import check_weights_path, unreadable
from pianolm.tokenizer.vocabulary import Vocabulary

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

Array = NDArray[np.float32]

CONSTRAINED_LOSS = "constrained_loss"
"""Key of `config.json`: true for a model trained with `loss.constrained=true`, to be used with the token mask only."""
FILL_SHARE, CONTROL_SHARE = SHARES = ("fill_share", "control_share")
"""Keys of `config.json`: options of `loader` of a model that learned to fill gaps or with controls."""
NORM_EPS = 1e-6
"""Default of transformers' `LlamaConfig.rms_norm_eps`."""
_FIRST_LAYER = "model.layers.0."
_BUFFER = ".rotary_emb.inv_freq"
"""A constant that older versions of transformers wrote beside the weights."""
_PRECISIONS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Floating-point types of safetensors, by torch's names."""


@dataclass(frozen=True, eq=False)
class Llama:
    """A Llama: its architecture and its weights.

    Attributes:
        config: Arguments of transformers' `LlamaConfig`.
        weights: By their names in `LlamaForCausalLM`; without the output layer where it is tied to the embedding.
        precision: Precision of the file's embedding, by torch's name; that of `network`.
        constrained: Whether it was trained with `loss.constrained=true`.
        fill_share: Share of fill sequences among the windows it was trained on; 0 for a model that cannot fill gaps.
        control_share: Share of windows with controls; 0 for a model that knows none.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, Array]
    precision: str = "float32"
    constrained: bool = False
    fill_share: float = 0.0
    control_share: float = 0.0

    def network(self) -> LlamaForCausalLM:
        """The model of transformers, ready for generation."""
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        model = LlamaForCausalLM(LlamaConfig(**self.config))
        dtype = getattr(torch, self.precision)
        for (
            parameter
        ) in model.parameters():  # not `model.to`: it would round the frequencies of rotary positions
            parameter.data = parameter.data.to(dtype)
        state = {name: torch.from_numpy(array) for name, array in self.weights.items()}
        model.load_state_dict(state, strict=False)  # not strict, as a tied output layer is not among them
        setattr(model.config, CONSTRAINED_LOSS, self.constrained)
        for name in SHARES:
            if share := getattr(self, name):
                setattr(model.config, name, share)
        return model.eval()


def llama_from_weights(
    path: Path,
    vocabulary: Vocabulary,
    heads: int,
    rope_theta: float,
    context: int,
    source: str,
    norm_eps: float = NORM_EPS,
) -> Llama:
    """A Llama with the weights of a file and the sizes that the shapes of its tensors show.

    Args:
        path: See `pianolm.lm.checkpoint.load_weights`.
        vocabulary: Has as many ids as the embedding has rows.
        heads: Attention heads; the shapes do not show them.
        rope_theta: Base of the rotary position embedding.
        context: Tokens that the model was trained on at a time.
        source: How error messages call the file, such as `upstream.model=PATH`.
        norm_eps: Added to the mean square in RMSNorm.

    Raises:
        UserError: The file cannot be read; a tensor is missing or left over; or shapes, heads and vocabulary do not fit
            together.
    """
    arrays, precisions = _read(path, source)
    named = rename_tensors(arrays, source)
    weights = {name: array for name, array in named.tensors.items() if not name.endswith(_BUFFER)}
    _check_embedding(weights, vocabulary, source)
    _refuse_not_finite(weights, named, source)
    config = {
        **_sizes(weights, heads, rope_theta, context, source),
        "rms_norm_eps": norm_eps,
        "pad_token_id": vocabulary.pad,
        "bos_token_id": vocabulary.bos,
        "eos_token_id": vocabulary.eos,
    }
    if config["tie_word_embeddings"]:
        weights.pop(HEAD, None)
    _refuse_difference(weights, dict(_shapes(config)), named, source)
    return Llama(config, weights, precisions[named.original[EMBEDDING]])


def _read(path: Path, source: str) -> tuple[dict[str, Array], dict[str, str]]:
    """All tensors of a weights file in float32, and their precisions. What holds no floats becomes not a number."""
    file = check_weights_path(path, source)
    arrays, precisions = {}, {}
    if file.suffix != ".safetensors":
        from pianolm.lm.weights_file import read_tensors  # imports torch, which a pickle needs

        for name, tensor in read_tensors(path, source).items():
            is_float = tensor.is_floating_point()
            arrays[name] = tensor.float().numpy() if is_float else np.full(tensor.shape, np.nan, np.float32)
            precisions[name] = str(tensor.dtype).removeprefix("torch.")
        return arrays, precisions
    try:
        entries = deserialize(file.read_bytes())
    except SafetensorError as error:
        raise unreadable(source, error) from error
    for name, entry in entries:
        precisions[name] = _PRECISIONS.get(entry["dtype"], "")
        arrays[name] = _floats(entry["dtype"], entry["data"], entry["shape"])
    return arrays, precisions


def _floats(dtype: str, data: bytearray, shape: list[int]) -> Array:
    """A tensor of a safetensors file in float32."""
    if dtype not in _PRECISIONS:
        return np.full(shape, np.nan, np.float32)
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    with np.errstate(over="ignore"):  # becomes infinite, and is refused
        return np.frombuffer(data, f"<f{int(dtype[1:]) // 8}").astype(np.float32).reshape(shape)


def _check_embedding(weights: Mapping[str, Array], vocabulary: Vocabulary, source: str) -> None:
    """Raises UserError where a file has no table of embeddings or one of another vocabulary."""
    if EMBEDDING not in weights:
        raise UserError(
            f"{source}: a checkpoint of a run with model.embedding=codebook found, whose table of embeddings is not in "
            "the file; give the artifact that the run published"
        )
    if weights[EMBEDDING].shape[0] != vocabulary.size:
        raise UserError(
            f"{source}: embedding of {weights[EMBEDDING].shape[0]} ids, the tokenizer has {vocabulary.size}; give the "
            "tokenizer of this model, or set tokenizer.vocabulary to its sizes"
        )


def _refuse_not_finite(weights: Mapping[str, Array], named: NamedWeights[Array], source: str) -> None:
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{source}: {named.original[name]} holds values that are not finite numbers; give the weights as they "
                "were published"
            )


def _sizes(
    weights: Mapping[str, Array], heads: int, rope_theta: float, context: int, source: str
) -> dict[str, Any]:
    """The architecture that the shapes of the first layer, the embedding and the number of layers show."""

    def rows(name: str) -> int:
        array = weights.get(_FIRST_LAYER + name)
        if array is None:
            raise UserError(f"{source}: lacks {_FIRST_LAYER}{name}, without which a Llama has no layers")
        return int(array.shape[0])

    query_rows, key_rows = rows("self_attn.q_proj.weight"), rows("self_attn.k_proj.weight")
    head_width = query_rows // max(heads, 1)
    if heads < 1 or query_rows % (2 * heads) or key_rows % head_width or heads % (key_rows // head_width):
        raise UserError(
            f"{source}: {query_rows} query rows and {key_rows} key rows a layer found, which do not divide into "
            f"heads={heads}; give the number of heads that the model was trained with (model.heads=…)"
        )
    head = weights.get(HEAD)
    return {
        "vocab_size": int(weights[EMBEDDING].shape[0]),
        "hidden_size": int(weights[EMBEDDING].shape[1]),
        "intermediate_size": rows("mlp.gate_proj.weight"),
        "num_hidden_layers": depth(weights),
        "num_attention_heads": heads,
        "num_key_value_heads": key_rows // head_width,
        "head_dim": head_width,
        "max_position_embeddings": context,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(rope_theta)},
        "attention_bias": _FIRST_LAYER + "self_attn.q_proj.bias" in weights,
        "mlp_bias": _FIRST_LAYER + "mlp.gate_proj.bias" in weights,
        "tie_word_embeddings": head is None or np.array_equal(head, weights[EMBEDDING]),
    }


def _shapes(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the tensors of a Llama, in the order of its state dict."""
    width, ffn, head_width = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    query, key = config["num_attention_heads"] * head_width, config["num_key_value_heads"] * head_width
    matrices = [
        ("self_attn.q_proj", query, width, config["attention_bias"]),
        ("self_attn.k_proj", key, width, config["attention_bias"]),
        ("self_attn.v_proj", key, width, config["attention_bias"]),
        ("self_attn.o_proj", width, query, config["attention_bias"]),
        ("mlp.gate_proj", ffn, width, config["mlp_bias"]),
        ("mlp.up_proj", ffn, width, config["mlp_bias"]),
        ("mlp.down_proj", width, ffn, config["mlp_bias"]),
    ]
    yield EMBEDDING, (config["vocab_size"], width)
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}."
        for name, outputs, inputs, has_bias in matrices:
            yield f"{layer}{name}.weight", (outputs, inputs)
            if has_bias:
                yield f"{layer}{name}.bias", (outputs,)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}{norm}.weight", (width,)
    yield "model.norm.weight", (width,)
    if not config["tie_word_embeddings"]:
        yield HEAD, (config["vocab_size"], width)


def _refuse_difference(
    weights: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    named: NamedWeights[Array],
    source: str,
) -> None:
    """Raises UserError where a file's tensors are not exactly those of a model."""
    refuse_missing(weights, list(shapes), source)
    left_over = [named.original[name] for name in weights if name not in shapes]
    if left_over:
        raise UserError(
            f"{source}: {left_over[0]}{and_more(left_over)} found, which a Llama does not have; pianolm generates "
            "with models of the Llama architecture"
        )
    for name, array in weights.items():
        if array.shape != shapes[name]:
            raise UserError(
                f"{source}: {named.original[name]} of shape {list(array.shape)} found, the other tensors make it "
                f"{list(shapes[name])}"
            )
