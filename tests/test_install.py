"""What is installed: a wheel with everything in it, the image, and the workflow that tries both."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import pianolm
from tests import image_steps
from tests.markdown import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
PYTHONS = ("3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(out.glob("*.whl")))


def files(folder: Path, pattern: str, below: Path) -> set[str]:
    return {path.relative_to(below).as_posix() for path in folder.rglob(pattern) if path.is_file()}


def test_a_wheel_has_the_code_the_configuration_and_the_models(wheel: zipfile.ZipFile) -> None:
    packed = set(wheel.namelist())
    assert files(ROOT / "pianolm", "*.py", ROOT) | files(ROOT / "hydra_plugins", "*.py", ROOT) <= packed
    assert {f"pianolm/{name}" for name in files(ROOT / "conf", "*.yaml", ROOT)} <= packed
    models = {name for name in files(ROOT / "pianolm" / "models", "*", ROOT) if "__pycache__" not in name}
    assert models <= packed
    assert {"pianolm/report/page.html", "pianolm/py.typed"} <= packed
    assert not [name for name in packed if name.startswith(("tests/", "experiments/"))]


def test_the_command_pianolm_is_what_the_wheel_installs(wheel: zipfile.ZipFile) -> None:
    (entry,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "pianolm = pianolm.command:main" in wheel.read(entry).decode()


def test_the_image_is_small_to_read_and_of_a_python_that_pianolm_runs_on() -> None:
    lines = DOCKERFILE.splitlines()
    assert len(lines) <= 25
    base = re.search(r"^FROM python:([\d.]+)", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert base[1] in PYTHONS
    assert lines[-1] == f'ENTRYPOINT ["{next(iter(PROJECT["scripts"]))}"]'
    copied = "constraints.txt"
    assert copied in DOCKERFILE
    assert (ROOT / copied).is_file()


@pytest.mark.slow  # downloads and installs what pianolm needs; the registry, or TORCH_INDEX, has to be reached
@pytest.mark.timeout(1800)
def test_the_steps_of_the_image_install_a_pianolm_that_plays(tmp_path: Path) -> None:
    """In an empty directory, with an environment of this Python in the place of the base image; no image is built."""
    environment, work = image_steps.run(sys.executable, tmp_path), tmp_path / "image" / "work"
    play = [environment / "bin" / "pianolm", "stage=generate", "generate.pieces=1", "generate.beats=8"]
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(play, cwd=work, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(work.rglob("*.mid"))


def test_the_steps_of_the_image_are_a_script_of_what_the_dockerfile_says(tmp_path: Path) -> None:
    steps = image_steps.script(DOCKERFILE, tmp_path).splitlines()
    said = [line.removeprefix("RUN ") for line in DOCKERFILE.splitlines() if line.startswith("RUN ")]
    assert said == [line for line in steps if line in said]
    assert steps[-1] == f"mkdir -p {tmp_path}/work; cd {tmp_path}/work"


def test_changelog_and_citation_are_of_this_version() -> None:
    heading = next(
        line for line in (ROOT / "CHANGELOG.md").read_text("utf-8").splitlines() if line.startswith("## ")
    )
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert heading == f"## {pianolm.__version__} ({citation['date-released']})"
    assert citation["version"] == pianolm.__version__
    assert (citation["cff-version"], citation["type"], citation["license"]) == (
        "1.2.0",
        "software",
        PROJECT["license"],
    )
    assert citation["keywords"] == PROJECT["keywords"]
    assert citation["message"]
    assert citation["title"].startswith("pianolm")
    assert citation["authors"]


def test_the_address_of_the_repository_is_one_everywhere_or_nowhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[0])
    addresses = [
        citation.get("repository-code"),
        PROJECT.get("urls", {}).get("Repository"),
        site.get("repo_url"),
    ]
    assert len(set(addresses)) == 1, addresses
    readme = (ROOT / "README.md").read_text("utf-8")
    assert f"git clone {addresses[0] or 'URL'} " in readme


def test_the_workflow_tries_every_python_with_the_targets_that_exist() -> None:
    low, high = re.findall(r"3\.(\d+)", PROJECT["requires-python"])
    assert tuple(f"3.{minor}" for minor in range(int(low), int(high))) == PYTHONS
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text("utf-8"))["jobs"]
    for job in ("test", "wheel"):
        assert tuple(jobs[job]["strategy"]["matrix"]["python"]) == PYTHONS
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {line.split()[1] for line in steps if line.startswith("make ")} <= targets
