"""Jobs of a sweep share the cores of a machine."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from pianolm.pipeline import job_cores
from pianolm.pipeline.job_cores import Share, jobs_at_once, share_of
from pianolm.pipeline.ray_jobs import cores_of_a_job
from pianolm.run import CONFIG_DIR
from tests.tiny import composed


@pytest.fixture(autouse=True)
def _sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_cores, "cores", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def swept(*words: str, **launcher: Any) -> DictConfig:
    """The configuration of a sweep, as Hydra gives it to its callbacks."""
    settings = [word for word in words if word.startswith(("hydra", "experiment"))]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        cfg = compose("config", settings, return_hydra_config=True)
    cfg.hydra.overrides.task = [word for word in words if not word.startswith("hydra")]
    cfg.hydra.launcher = {**cfg.hydra.launcher, **launcher}
    return cfg


def test_the_number_of_jobs_is_the_product_of_choices_and_ranges() -> None:
    assert jobs_at_once(swept("seed=1,2,3", "model=tiny,small", "stage=base")) == 6
    assert jobs_at_once(swept("seed=range(0,5)", "hydra.sweeper.max_batch_size=2")) == 2
    assert jobs_at_once(swept("experiment=lr_sweep")) == 6
    assert jobs_at_once(swept("experiment=lr_sweep", "optimizer.lr=1e-3")) == 2, "the command line wins"
    assert jobs_at_once(swept("hydra/sweeper=optuna", "hydra.sweeper.n_jobs=3", "seed=1,2")) == 3
    assert jobs_at_once(swept("model=glob(*)")) == 16


@pytest.mark.parametrize(("n_jobs", "expected"), [(-1, 4), (2, 8), (8, 4), (-13, 4), (1, None)])
def test_jobs_that_run_at_once_share_the_cores(n_jobs: int, expected: int | None) -> None:
    assert share_of(swept("seed=1,2,3,4", n_jobs=n_jobs)) == Share(expected, expected)
    assert share_of(swept("seed=1,2,3,4")) == Share(), "one after the other"


def test_a_job_gets_threads_and_workers_where_the_user_has_set_none(monkeypatch: pytest.MonkeyPatch) -> None:
    share = Share.of_cores(4)
    assert share.environment["OMP_NUM_THREADS"] == "4"
    assert share.configured(composed())["compute"] == {"threads": 4, "workers": 4, "loader_workers": 0}
    two = share.configured(composed("hardware=ddp_cpu", "hardware.devices=2"))
    assert two["compute"]["threads"] == 2, "shared among its processes"
    assert share.configured(composed("compute.threads=3", "compute.workers=2"))["compute"]["threads"] == 3
    assert Share().configured(composed()) == composed()
    assert Share().environment == {}
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert Share.of_cores(4) == Share(4, 2)


def test_a_job_on_a_cluster_gets_the_most_cores_with_which_all_run_at_once() -> None:
    assert cores_of_a_job([16, 16], 2) == 16
    assert cores_of_a_job([16, 16], 3) == 8
    assert cores_of_a_job([16, 4], 5) == 4
    assert cores_of_a_job([2], 9) == 1
