"""The networks of the frame form agree with the NumPy codec and use their codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pianolm.music.cells import frame_velocity
from pianolm.tokenizer.velocity.frame import VELOCITY_CENTRE, VELOCITY_SCALE, segment_velocities
from pianolm.velvq.network_frame import FrameSettings, FrameVelVQ, normalise
from tests.velvq.toys import two_note_cells


def settings(**changes: Any) -> FrameSettings:
    defaults: dict[str, Any] = {
        "codebook_size": 64,
        "hidden": 64,
        "latent": 8,
        "depth": 1,
        "lr": 5e-3,
        "warmup_steps": 10,
        "commitment": 0.25,
        "decay": 0.95,
        "dead_code_threshold": 0.5,
        "max_steps": 300,
    }
    return FrameSettings(**{**defaults, **changes})


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)


def test_numpy_and_torch_agree() -> None:
    model = FrameVelVQ(settings(depth=2))
    rng = np.random.default_rng(0)
    cells = two_note_cells(400)
    cells.onset[:] = np.uint64(1) | np.uint64(1) << rng.integers(1, 48, 400).astype(np.uint64)
    cells.segment_velocity[:] = rng.integers(1, 128, cells.segment_velocity.size)
    velocity = torch.from_numpy(frame_velocity(cells))
    model(velocity)  # k-means initialises the codes
    model.eval()
    with torch.no_grad():
        output = model(velocity)
    codec = model.codec()
    codes = codec.encode(cells)
    assert np.array_equal(codes, output.codes.numpy())
    assert np.unique(codes).size > 20
    frames_CF = output.frames.numpy() * VELOCITY_SCALE + VELOCITY_CENTRE
    expected = segment_velocities(frames_CF, cells.sustain, cells.onset)
    assert np.array_equal(codec.decode(codes, cells.sustain, cells.onset), expected)


def test_silent_frames_have_no_part_in_the_loss() -> None:
    model = FrameVelVQ(settings())
    velocity = torch.zeros(64, 48, dtype=torch.uint8)
    velocity[:, 10:20] = torch.randint(1, 128, (64, 1))
    seen: list[torch.Tensor] = []
    model.register_forward_hook(
        lambda _m, _i, output: (output.frames.retain_grad(), seen.append(output.frames))[0]
    )
    losses = model.training_losses({"velocity": velocity})
    losses["loss"].backward()
    gradient = seen[0].grad
    assert gradient is not None
    assert not gradient[velocity == 0].any()
    assert gradient[velocity > 0].all()
    expected = (seen[0] - normalise(velocity))[velocity > 0].square().mean()
    assert torch.allclose(losses["reconstruction"], expected)


def test_the_decoder_reads_the_mask_at_its_start_and_before_its_output() -> None:
    model: Any = FrameVelVQ(settings())
    latent, mask = torch.randn(8, 8), torch.zeros(8, 48)
    plain = model.decode(latent, mask)
    for layer in (model.decoder[0], model.output[0]):
        kept = layer.weight.detach().clone()
        layer.weight.data[:, -48:] = 0  # the other place still reads the mask
        assert not torch.allclose(model.decode(latent, mask + 1), model.decode(latent, mask))
        layer.weight.data = kept
    for layer in (model.decoder[0], model.output[0]):
        layer.weight.data[:, -48:] = 0
    assert torch.equal(model.decode(latent, mask + 1), model.decode(latent, mask))
    assert plain.shape == (8, 48)


def test_dead_codes_restart() -> None:
    model = FrameVelVQ(settings(dead_code_threshold=0.5))
    velocity = torch.from_numpy(frame_velocity(two_note_cells(512)))
    model(velocity)
    codebook: Any = model.quantizer.layers[0]._codebook
    codebook.embed[0, :32] = 1e3  # far from every cell
    codebook.embed_avg[0, :32] = 1e3
    codebook.cluster_size[0, :32] = 1.0
    for _ in range(40):
        model(velocity)
    assert codebook.embed[0].abs().max() < 100
    assert np.isfinite(codebook.embed.numpy()).all()


def test_velocities_are_centred_and_silence_is_zero() -> None:
    assert normalise(torch.tensor([0, 64, 88], dtype=torch.uint8)).tolist() == [0.0, 0.0, 1.0]
