"""Where a checkpoint's files come from: the hub, a folder, or one file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, Unpack

from mvit_coreml.errors import CheckpointError, InputError, first_line

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".json")
_FROM_FOLDER = "or fetch the files elsewhere and give their folder"


@dataclass(frozen=True)
class Source:
    """A place that has files.

    Attributes:
        name: the hub id, or the folder's or file's own name without its path.
        fetch: local path of the file of a given name, or ``None`` where there is none.
        revision: the hub commit, when it came from the hub.
        weight_file: the file that was asked for, when it was one.
        where: words for where its files are looked for.
    """

    name: str
    fetch: Callable[[str], Path | None]
    revision: str | None = None
    weight_file: str | None = None
    where: str = "there"


class HubOptions(TypedDict, total=False):
    """How the hub is asked.

    Attributes:
        token: hub token, ``True`` for the stored one, ``False`` for none.
        cache_dir: folder of the hub cache instead of the default one.
        local_files_only: never ask the hub, use its cache alone.
    """

    token: str | bool | None
    cache_dir: str | Path | None
    local_files_only: bool


def open_source(
    source: str | Path, *, revision: str | None = None, **hub: Unpack[HubOptions]
) -> Source:
    """Find out what a source is and make its files available.

    Args:
        source: hub id (``owner/name``), folder or weight file.
        revision: branch, tag or commit of a hub model.
        hub: see :class:`HubOptions`.

    Raises:
        CheckpointError: there is no such place, or it cannot be reached.
        InputError: a revision was given for files that are already here.
    """
    path = Path(source).expanduser()
    if path.exists():
        if revision is not None:
            raise InputError(
                f"{source}: revision {revision!r} only applies to a model on the hub; leave it out"
            )
        if path.is_dir():
            return Source(path.resolve().name, _in_folder(path))
        return Source(path.name, _in_folder(path.parent), weight_file=path.name)
    if not isinstance(source, str) or _looks_like_path(source):
        raise CheckpointError(
            f"{source}: no such file or folder; a model on the hub is named owner/name"
        )
    return _open_hub(source, revision, hub)


def _looks_like_path(source: str) -> bool:
    return not _HUB_ID.fullmatch(source) or source.endswith(_FILE_SUFFIXES)


def _in_folder(folder: Path) -> Callable[[str], Path | None]:
    def fetch(name: str) -> Path | None:
        path = folder / name
        return path if path.is_file() else None

    return fetch


def _open_hub(repo: str, revision: str | None, hub: HubOptions) -> Source:
    from huggingface_hub import constants, errors, hf_hub_download, try_to_load_from_cache

    offline = hub.get("local_files_only") or constants.HF_HUB_OFFLINE

    def fetch(name: str, at: str | None) -> Path | None:
        try:
            return Path(hf_hub_download(repo, name, revision=at, **hub))
        except errors.LocalEntryNotFoundError as error:
            cached = try_to_load_from_cache(repo, name, hub.get("cache_dir"), at)
            if offline or (cached is not None and not isinstance(cached, str)):
                return None  # not in the cache, or known there to be absent from the hub
            raise _hub_error(repo, at, error) from None
        except errors.EntryNotFoundError:
            return None
        # Each version of the library brings the exceptions of another HTTP client.
        except Exception as error:
            raise _hub_error(repo, at, error) from None

    config = fetch("config.json", revision)
    if config is None:
        missing = (
            f"{repo}: not in the local cache, and the hub may not be asked; "
            f"load it once while online, {_FROM_FOLDER}"
            if offline
            else f"{repo}: the hub has no config.json for it, so it is no model of a known format"
        )
        raise CheckpointError(missing)
    # One commit for all files, even if the branch moves between two downloads.
    commit = config.parent.name
    where = "in the local cache, which alone may be used" if offline else "there"
    return Source(repo, lambda name: fetch(name, commit), revision=commit, where=where)


def _hub_error(repo: str, revision: str | None, error: Exception) -> CheckpointError:
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            reason = (
                "access is gated: accept its terms on its page on the hub and log in with "
                f"'hf auth login', {_FROM_FOLDER}"
            )
        case errors.RepositoryNotFoundError():
            reason = (
                "no such folder here and no such model on the hub, or a private one: check the "
                f"name, log in with 'hf auth login', {_FROM_FOLDER}"
            )
        case errors.RevisionNotFoundError():
            reason = f"the hub has no revision {revision!r} of it"
        case errors.LocalEntryNotFoundError():
            reason = f"the hub cannot be reached: check the connection, {_FROM_FOLDER}"
        case _:
            reason = f"the hub did not deliver it ({first_line(error)}): try again, {_FROM_FOLDER}"
    return CheckpointError(f"{repo}: {reason}")
