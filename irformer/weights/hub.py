"""Weights on the Hugging Face Hub: `hf://OWNER/REPO[@REVISION][/FILE]` anywhere a checkpoint is expected.

huggingface_hub downloads each file once and keeps it in its own cache; it also reads HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT.
"""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

from irformer.core.trust import shortened
from irformer.errors import UserError
from irformer.weights.bundled import WEIGHTS
from irformer.weights.licenses import CARD

SCHEME = "hf://"
_FORM = "hf://OWNER/REPO[@REVISION][/FILE]"
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/]+))?(?:/(?P<file>.+))?")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubAddress:
    """A repository of the Hub, or a file in it.

    Args:
        repo: OWNER/REPO.
        revision: branch, tag or commit; None for the default branch.
        file: path of the file in the repository; None for its weights.
    """

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision.replace('/', '%2F')}"
        return f"{SCHEME}{self.repo}{revision}" + ("" if self.file is None else f"/{self.file}")


def hub_address(path: str | PurePath) -> HubAddress | None:
    """Return the address of the Hub that a path is; None for any other path.

    A `Path` made of an address has a single slash after `hf:`, which is read as well. A slash in a revision is written as `%2F`.

    Raises:
        UserError: it begins like an address and is none.
    """
    text = path.as_posix() if isinstance(path, PurePath) else path
    if not text.startswith("hf:/"):
        return None
    match = _ADDRESS.fullmatch(text)
    if match is None or ".." in text.split("/"):
        raise UserError(f"{shortened(text)}: expected {_FORM}")
    revision = match["revision"]
    return HubAddress(match["repo"], None if revision is None else unquote(revision), match["file"])


def fetch_weights(address: HubAddress) -> Path:
    """Return the file of the weights at an address, downloaded unless it is in huggingface_hub's cache.

    If the address names no file, it is model.safetensors, or the only .safetensors file. Other formats must be named.

    Raises:
        UserError: huggingface_hub is not installed, the repository, its revision or the file does not exist or cannot be read, or the
            address does not tell which file is meant.
    """
    file = address.file or WEIGHTS
    found = _download(address, file)
    if found is None and address.file is None:
        file = _only_safetensors(address)
        found = _download(address, file)
    if found is None:
        raise UserError(f"{address}: no such file in {address.repo}; expected one of {_listed(_files(address))}")
    commit = found.parents[file.count("/")].name  # the cache has a folder for each commit
    if address.revision != commit:
        _log.info("%s: %s", address, HubAddress(address.repo, commit, file))
    return found


def fetch_card(address: HubAddress) -> Path | None:
    """Return the model card (README.md) of the repository at an address; None if it has none or the Hub cannot be reached."""
    try:
        return _download(address, CARD)
    except UserError:
        return None


def _only_safetensors(address: HubAddress) -> str:
    files = _files(address)
    candidates = [name for name in files if name.endswith(".safetensors")]
    if len(candidates) == 1:
        return candidates[0]
    expected = f"{address.repo} has {_listed(candidates or files)}"
    raise UserError(f"{address}: no {WEIGHTS}, and not exactly one other .safetensors file; {expected}: name one, {address}/FILE")


def _files(address: HubAddress) -> list[str]:
    return _asked(address, lambda hub: hub.HfApi(endpoint=_endpoint()).list_repo_files(address.repo, revision=address.revision)) or []


def _download(address: HubAddress, file: str) -> Path | None:
    """Return a file of the repository in the cache; None if the repository has no such file."""
    found = _asked(address, lambda hub: hub.hf_hub_download(address.repo, file, revision=address.revision, endpoint=_endpoint()))
    return None if found is None else Path(found)


def _asked(address: HubAddress, ask: Any) -> Any:
    """Return what a function of huggingface_hub returns, or None if a file does not exist; all other errors become one line."""
    try:
        import huggingface_hub as hub
        from huggingface_hub import errors
    except ImportError:
        raise UserError(f"{address}: needs huggingface_hub, which is not installed: pip install 'irformer[hub]'") from None
    try:
        return ask(hub)
    except errors.LocalEntryNotFoundError as error:  # also an EntryNotFoundError
        cause = error.__cause__ or error
        reason = shortened(next(iter(str(cause).splitlines()), type(cause).__name__), 200)
        raise UserError(f"{address}: the Hub cannot be reached, and the file is not in the cache ({reason})") from None
    except errors.EntryNotFoundError:
        return None
    except errors.RevisionNotFoundError:
        raise UserError(f"{address}: {address.repo} has no revision {address.revision}; expected a branch, a tag or a commit") from None
    except errors.GatedRepoError:
        raise UserError(f"{address}: access is restricted; accept its terms on its page, and log in with `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise UserError(f"{address}: no such repository; expected {_FORM}, and `hf auth login` if it is private") from None
    except Exception as error:  # invalid names, and errors of the connection of several libraries
        raise UserError(f"{address}: {shortened(next(iter(str(error).splitlines()), type(error).__name__), 200)}") from None


def _endpoint() -> str | None:
    """Return the address of the Hub, if the variable HF_ENDPOINT sets another than the public one."""
    return os.environ.get("HF_ENDPOINT") or None


def _listed(files: list[str]) -> str:
    return ", ".join(shortened(name) for name in files[:8]) + (f" and {len(files) - 8} more" if len(files) > 8 else "") or "no files"
