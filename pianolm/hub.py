"""Models on the Hugging Face hub: their names, and what goes there and comes from there.

Only files that hold data are fetched; code that lies beside weights never reaches pianolm. `HF_ENDPOINT`, `HF_TOKEN`,
`HF_HOME` and `HF_HUB_OFFLINE` mean what they mean to huggingface_hub, which is imported on first use.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pianolm.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer/*",
    "code_freq.npz",
    "CREDITS.csv",
    "WORKS.csv",
)
"""Patterns of the files that make a model; the record (`artifact.json`) of an exported model has their hashes."""
FETCHED = (*MODEL_FILES, "artifact.json", "README.md")
TOKENIZER_FILES = ("tokenizer/*",)
_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*", re.ASCII)
_NO_CONNECTION = "check the connection, or give the path of a model that is here"
_FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz")


def is_valid_name(name: str) -> bool:
    """Whether a text has the form `user/name`."""
    return _NAME.fullmatch(name) is not None


def is_hub_name(name: object) -> bool:
    """Whether a text is `user/name` and no path here; `./user/name` always means a path."""
    return (
        isinstance(name, str)
        and is_valid_name(name)
        and not name.endswith(_FILE_ENDINGS)
        and not Path(name).exists()
    )


def fetch(name: str, patterns: tuple[str, ...] = FETCHED) -> Path:
    """The directory of a model of the hub on this machine; files that are not here yet are fetched.

    Without a connection it is the model as it was fetched last.

    Args:
        name: `user/name`.
        patterns: The files to fetch.

    Raises:
        UserError: There is no such model that this machine may read, or the hub cannot be reached and the model was not
            fetched before.
    """
    from huggingface_hub import snapshot_download

    with _told(f"{name}: no such directory here", "read"):
        return Path(snapshot_download(name, allow_patterns=list(patterns), ignore_patterns=["*.py"]))


def require_token(key: str) -> None:
    """Checks before anything is built that there is a token to write with.

    Args:
        key: How the error calls what needs it, such as `export.push=user/name`.

    Raises:
        UserError: There is none.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError(
            f"{key}: no token of the Hugging Face hub found; log in with `hf auth login`, or set HF_TOKEN to a token "
            "that may write"
        )


def push(directory: Path, name: str) -> str:
    """Uploads a directory as a model. A repository that does not exist is made, private to its owner.

    Args:
        directory: What to upload.
        name: `user/name`.

    Returns:
        The address of the model.

    Raises:
        UserError: There is no token, or the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    require_token(f"export.push={name}")
    with _told(f"export.push={name}: not uploaded", "write to"):
        api = HfApi()
        url = str(api.create_repo(name, private=True, exist_ok=True))
        api.upload_folder(folder_path=directory, repo_id=name, commit_message="Upload of a pianolm model")
    return url


@contextmanager
def _told(subject: str, right: str) -> Iterator[None]:
    """Errors of huggingface_hub as one sentence that begins with `subject`; `right` is what a token must allow."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # that of its HTTP library

    try:
        yield
    except UserError:
        raise
    # those of huggingface_hub itself are among these
    except (HTTPError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{subject}{_reason(error, right)}") from error


def _reason(error: Exception, right: str) -> str:
    """What went wrong and what to do, as the rest of a sentence."""
    from huggingface_hub import constants, errors

    hub, cause = constants.ENDPOINT, error.__cause__
    match error:
        case errors.GatedRepoError():
            return (
                f", and {hub} shows this model only to those it is granted to; ask for it on its page there, then log "
                "in with `hf auth login` or set HF_TOKEN"
            )
        case errors.RepositoryNotFoundError():
            return (
                f", and {hub} has no model of this name that this machine may see; check the name, and for a private "
                "model log in with `hf auth login` or set HF_TOKEN"
            )
        case errors.HfHubHTTPError():
            return _refused(hub, right, error)
        case ValueError():
            return f": {_first_line(error)}"
        case errors.HTTPError():  # type: ignore[attr-defined]
            return f", and {hub} cannot be reached ({type(error).__name__}); {_NO_CONNECTION}"
    if isinstance(cause, errors.HfHubHTTPError):
        return _refused(hub, right, cause)
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{hub} cannot be reached"
        return f", and {offline}; {_NO_CONNECTION}"
    # large files go to a storage of its own, by Xet or Git LFS
    return (
        f", and the exchange of large files with {hub} failed ({_first_line(error)}); check the connection, the token "
        "and the disk, then try again"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _refused(hub: str, right: str, error: HfHubHTTPError) -> str:
    """The rest of a sentence for an answer of the hub that is an error."""
    status = error.response.status_code
    if status not in (401, 403):
        return f", and {hub} answered with status {status}; try again later"
    return (
        f", and {hub} refused the token (status {status}); log in with `hf auth login`, or set HF_TOKEN, with "
        f"a valid token that may {right} this repository, also if it is private"
    )
