"""Renaming weights by a table of patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mvit_coreml.errors import CheckpointError


@dataclass(frozen=True)
class KeyMap:
    """How the weight names of one format become ours.

    Attributes:
        renames: (pattern, replacement) pairs of :func:`re.sub`, applied to every name in order.
        splits: (pattern, parts) pairs: a renamed weight ``…part0.x`` whose name matches is cut
            along its first axis into as many equal weights, the matched text replaced by each part.
        dropped: patterns of names, as the file spells them, that the deployed network never uses.
    """

    renames: Sequence[tuple[str, str]]
    splits: Sequence[tuple[str, tuple[str, ...]]] = ()
    dropped: Sequence[str] = ()

    def rename(self, name: str) -> str:
        """Return our name for one name of the file."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def is_dropped(self, name: str) -> bool:
        """Tell whether the deployed network has no use for this name of the file."""
        return any(re.match(pattern, name) for pattern in self.dropped)

    def apply(self, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Rename, cut and drop weights.

        Returns:
            The weights under our names, and for each of our names the file's.

        Raises:
            CheckpointError: two weights of the file lead to one name.
        """
        weights: dict[str, Tensor] = {}
        origins: dict[str, str] = {}
        for source, tensor in tensors.items():
            if self.is_dropped(source):
                continue
            for name, part in self._split(self.rename(source), tensor):
                if name in weights:
                    raise CheckpointError(
                        f"weights {origins[name]!r} and {source!r} are both {name!r}; "
                        "keep one of them"
                    )
                weights[name] = part
                origins[name] = source
        return weights, origins

    def _split(self, name: str, tensor: Tensor) -> Iterable[tuple[str, Tensor]]:
        for pattern, parts in self.splits:
            found = re.search(pattern, name)
            # A size that does not divide is left whole for the shape check to report.
            if found and tensor.ndim and tensor.shape[0] % len(parts) == 0:
                head, tail = name[: found.start()], name[found.end() :]
                names = [head + part + tail for part in parts]
                return zip(names, tensor.chunk(len(parts)), strict=True)
        return [(name, tensor)]
