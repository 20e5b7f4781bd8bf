"""The quick way to compose configurations gives what Hydra gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from tests.tiny import TINY, composed, composed_by_hydra


@pytest.mark.parametrize(
    "line",
    [
        f"{' '.join(TINY)} stage=generate prompt=a.mid generate=songs generate.by_kind.bar.top_p=1 ~callbacks.progress",
        "data=mix data.parts.asap=a experiment=demo seed=3 prompt=null +callbacks.mine._target_=no.Such "
        "loader.source_weights.asap=2",
    ],
)
def test_values_put_into_kept_groups_are_those_of_hydra(line: str, tmp_path: Path) -> None:
    words = [*line.split(), "logger.mine={a: 1}", f"paths.artifacts={tmp_path}"]
    for _ in range(2):  # what is kept is not changed
        assert composed(*words) == OmegaConf.to_container(composed_by_hydra(*words), resolve=True)


@pytest.mark.parametrize("wrong", ["model.widht=3", "model.width=1,2"])
def test_what_hydra_refuses_is_refused(wrong: str) -> None:
    with pytest.raises(HydraException):
        composed_by_hydra(wrong)
    with pytest.raises(HydraException):
        composed(wrong)
