"""To the hub and back; what can go wrong there is one sentence, and code that lies there is neither fetched nor run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import huggingface_hub.constants
import pytest

from pianolm import PianoLM, PianoTokenizer, hub
from pianolm.errors import UserError
from pianolm.pipeline.model_choice import choose_models
from tests.hub_server import Hub, Repository
from tests.tiny import composed

CODE = b"import pathlib\npathlib.Path(%r).write_text('ran')\n"


@pytest.fixture
def pushed(server: Hub, exported: Path) -> Hub:
    hub.push(exported, "anna/toy")
    return server


def ids_of(model: str | Path) -> list[int]:
    (one,) = PianoLM.from_pretrained(model).generate_pieces(beats=2, seed=3)
    return [int(token) for token in one.ids]


def test_a_model_goes_to_the_hub_and_plays_the_same_from_there(pushed: Hub, exported: Path) -> None:
    model = pushed.models["anna/toy"]
    assert model.private
    assert set(model.files) == {
        p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()
    }
    assert ids_of("anna/toy") == ids_of(exported)
    hashes = PianoTokenizer.from_pretrained("anna/toy").hashes
    assert hashes == PianoTokenizer.from_pretrained(exported).hashes


@pytest.fixture
def large(server: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub as it treats weights: what is binary goes to the storage of large files, here by Git LFS."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    server.takes_large = True
    return server


HTTPX = "ignore:Use 'content=<...>':DeprecationWarning"
"""huggingface_hub 2.4 uses an interface that its HTTP library renames."""


@pytest.mark.filterwarnings(HTTPX)
def test_weights_go_to_the_storage_of_large_files_in_parts(large: Hub, exported: Path) -> None:
    """The hub is asked how, then where to; after the upload the commit names them by their hash."""
    weights = exported / "model.safetensors"
    large.part_bytes = weights.stat().st_size // 2 - 1
    hub.push(exported, "anna/toy")
    oid = hashlib.sha256(weights.read_bytes()).hexdigest()
    steps = (
        "POST /api/models/anna/toy/preupload/main",
        "POST /anna/toy.git/info/lfs/objects/batch",
        *(f"PUT /storage/{oid}/{part}" for part in (1, 2, 3)),
        f"POST /storage/{oid}/complete",
        "POST /api/models/anna/toy/commit/main",
    )
    at = [large.requests.index(step) for step in steps]
    assert at == sorted(at)
    assert "POST /anna/toy.git/info/lfs/verify" in large.requests
    assert "model.safetensors" in large.models["anna/toy"].large
    assert "README.md" not in large.models["anna/toy"].large
    assert ids_of("anna/toy") == ids_of(exported)
    assert f"GET /storage/{oid}" in large.requests
    n_uploads = sum(line.startswith("PUT") for line in large.requests)
    hub.push(exported, "anna/toy")
    assert sum(line.startswith("PUT") for line in large.requests) == n_uploads, "they are there"


@pytest.mark.filterwarnings(HTTPX)
def test_a_storage_that_refuses_weights_is_one_sentence(large: Hub, exported: Path) -> None:
    large.storage_status = 403
    with pytest.raises(UserError, match=r"^export.push=anna/toy: not uploaded, and .*status 403") as refused:
        hub.push(exported, "anna/toy")
    assert "\n" not in str(refused.value)
    assert not large.models["anna/toy"].files


def test_weights_go_by_xet_where_it_is_installed(server: Hub, exported: Path, tmp_path: Path) -> None:
    """Its client has a storage on the disk for such tests; the commit names files by their SHA-256 again."""
    pytest.importorskip("hf_xet")
    weights = (exported / "model.safetensors").read_bytes()
    server.takes_large, server.chunks = True, f"local://{tmp_path}/chunks"
    for path in exported.rglob("*"):  # what is fetched by plain HTTP, as from a machine without Xet
        if path.is_file():
            server.stored[hashlib.sha256(path.read_bytes()).hexdigest()] = path.read_bytes()
    hub.push(exported, "anna/toy")
    asked = "GET /api/models/anna/toy/xet-write-token/main"
    assert server.requests.index(asked) < server.requests.index("POST /api/models/anna/toy/commit/main")
    assert not [line for line in server.requests if line.startswith("PUT") or "/lfs/" in line]
    chunks = sum(path.stat().st_size for path in (tmp_path / "chunks").rglob("*") if path.is_file())
    assert chunks > 0.8 * len(weights), "numbers at random can hardly be compressed"
    assert server.models["anna/toy"].files["model.safetensors"] == weights
    assert ids_of("anna/toy") == ids_of(exported)
    server.refusal = (403, "Forbidden")
    with pytest.raises(UserError, match=r"^export.push=anna/toy: not uploaded, and .*403.*token") as refused:
        hub.push(exported, "anna/toy")
    assert "\n" not in str(refused.value)


def test_a_tokenizer_alone_is_fetched_without_the_weights(pushed: Hub) -> None:
    PianoTokenizer.from_pretrained("anna/toy")
    fetched = [line for line in pushed.requests if "/resolve/" in line]
    assert fetched
    assert all("/tokenizer/" in line for line in fetched)


def test_without_a_connection_it_is_the_model_fetched_last(
    pushed: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ids_of("anna/toy")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    n_requests = len(pushed.requests)
    assert ids_of("anna/toy") == before
    assert len(pushed.requests) == n_requests
    with pytest.raises(UserError, match=r"anna/other: no such directory here, and HF_HUB_OFFLINE is set; "):
        PianoLM.from_pretrained("anna/other")


def test_a_hub_that_does_not_answer_is_one_sentence(
    server: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    for act in (lambda: PianoLM.from_pretrained("anna/toy"), lambda: hub.push(exported, "anna/toy")):
        with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9 cannot be reached") as refused:
            act()
        assert "\n" not in str(refused.value)


def test_a_name_that_the_hub_does_not_know_or_show_is_one_sentence(
    pushed: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"anna/typo: no such directory here, and .* has no model of this name"
    ):
        PianoLM.from_pretrained("anna/typo")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"for a private model log in with `hf auth login` or set HF_TOKEN"):
        PianoLM.from_pretrained("anna/toy")


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            (401, "Unauthorized"),
            r"refused the token \(status 401\); .*hf auth login.*HF_TOKEN.* may read this",
        ),
        ((403, "Forbidden"), r"refused the token \(status 403\); .*hf auth login.*HF_TOKEN.* may read this"),
        ((403, "GatedRepo"), r"only to those it is granted to; .*hf auth login"),
        ((500, "Broken"), r"answered with status 500; try again later"),
    ],
)
def test_a_model_that_may_not_be_read_is_one_sentence_about_the_token(
    refusal: tuple[int, str], said: str, server: Hub
) -> None:
    server.models["anna/toy"], server.refusal = Repository(private=True), refusal
    with pytest.raises(UserError, match=rf"^anna/toy: no such directory here, and .*{said}") as refused:
        PianoLM.from_pretrained("anna/toy")
    assert "\n" not in str(refused.value)


def test_a_push_without_a_token_or_a_right_is_one_sentence(
    server: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"bert/toy: not uploaded, and .* refused .* 403.* may write to this"):
        hub.push(exported, "bert/toy")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UserError, match=r"export.push=anna/toy: no token .* set HF_TOKEN"):
        hub.push(exported, "anna/toy")
    assert server.models == {}


def test_a_model_that_its_owner_made_public_stays_public(server: Hub, exported: Path) -> None:
    server.models["anna/toy"] = Repository(private=False)
    hub.push(exported, "anna/toy")
    assert "model.safetensors" in server.models["anna/toy"].files
    assert not server.models["anna/toy"].private


def test_only_a_text_of_two_words_that_is_no_path_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert hub.is_hub_name("anna/toy-1.0")
    (tmp_path / "anna" / "toy-1.0").mkdir(parents=True)
    others = (
        "anna/toy-1.0",
        "./anna/toy",
        "/anna/toy",
        "anna",
        "a/b/c",
        "../toy",
        "anna/w.safetensors",
        "~/toy",
    )
    assert not any(map(hub.is_hub_name, (*others, Path("anna/toy"), None)))


@pytest.mark.parametrize("role", ["model", "base", "tokenizer"])
def test_upstream_may_name_a_model_of_the_hub(role: str, pushed: Hub) -> None:
    said: list[str] = []
    cfg = choose_models(composed("stage=finetune", f"upstream.{role}=anna/toy"), [], said.append)
    path = Path(cfg["upstream"][role])
    assert (path / "model.safetensors").is_file()
    assert said[0] == f"upstream.{role}=anna/toy: takes {path}"
    assert cfg["upstream"]["cells"] is None


def test_code_beside_weights_is_neither_fetched_nor_run(pushed: Hub, exported: Path, tmp_path: Path) -> None:
    """Of any name that Python, transformers or a tokenizer could import."""
    trace = tmp_path / "trace"
    files = pushed.models["anna/toy"].files
    names = (
        "tokenization_pianolm.py",
        "modeling_llama.py",
        "__init__.py",
        "sitecustomize.py",
        "tokenizer/a.py",
    )
    for name in names:
        files[name] = CODE % str(trace)
    files["config.json"] = files["config.json"].replace(
        b'"model_type"', b'"auto_map": {"AutoModelForCausalLM": "modeling_llama.Model"}, "model_type"'
    )
    del files["artifact.json"]  # its hash of config.json
    assert ids_of("anna/toy") == ids_of(exported)
    assert not trace.exists()
    assert not [line for line in pushed.requests if line.endswith(".py")]
