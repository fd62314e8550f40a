"""Choosing the entries of a weight's lookup table by what they do to the layer's outputs.

The error of a layer is E H Eᵀ for each output channel, with E the error of its weights and H the
second moments of its inputs. Columns are quantised one by one, each pushing its error onto those
that are still free, as in GPTQ (Frantar et al., 2022, arXiv:2210.17323), which goes back to the
optimal brain surgeon. Here the levels are a lookup table's instead of a grid's, and the table is
refitted to the indices in turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Columns whose error is pushed on at once.
_BLOCK = 64
_CONJUGATE_STEPS = 6
# Relative to the mean of the diagonal, added to it for a stable factorisation.
_DAMPING = 0.01
_DAMPING_OVERALL = 1e-4


@dataclass(frozen=True)
class Codes:
    """A weight matrix as tables and indices.

    Attributes:
        tables: (T, entries) ascending.
        indices: int64, (G, O, K).
        table_of: (G, O), the table that each output channel uses.
    """

    tables: Tensor
    indices: Tensor
    table_of: Tensor

    def decode(self) -> Tensor:
        """Return the (G, O, K) weights."""
        return self.tables[self.table_of[:, :, None], self.indices]


def output_error(error: Tensor, moments: Tensor, rows: Tensor) -> float:
    """Return the error of a layer's outputs.

    Args:
        error: (G, O, K), of the weights.
        moments: (G, K, K), of the inputs.
        rows: (G, O), importance of each output channel.
    """
    return float((rows[:, :, None] * (error @ moments) * error).sum())


def assign(
    weight: Tensor, moments: Tensor, rows: Tensor, start: Codes, rounded: torch.dtype, rounds: int
) -> Codes:
    """Improve the codes of a weight matrix: indices by error feedback, tables by least squares.

    Args:
        weight: (G, O, K) fp32.
        moments: (G, K, K) fp32, positive semidefinite.
        rows: (G, O), importance of each output channel.
        start: codes to improve.
        rounded: float16 or float32: the type that tables are stored in.
        rounds: how often to do both.

    Returns:
        The best codes met, ``start`` included, by the error of the outputs.
    """
    order, factor = _feedback(moments)
    best, least = start, output_error(weight - start.decode(), moments, rows)
    tables = start.tables
    for _ in range(rounds):
        indices = _quantise(weight, tables, start.table_of, order, factor)
        fitted = _fit_tables(weight, moments, rows, Codes(tables, indices, start.table_of))
        found = _sorted(Codes(fitted.to(rounded).float(), indices, start.table_of))
        error = output_error(weight - found.decode(), moments, rows)
        if not error < least:
            break
        best, least, tables = found, error, found.tables
    return best


def _feedback(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return the columns' order and the upper factor of the inverse moments in that order."""
    diagonal = moments.diagonal(dim1=1, dim2=2)
    damping = _DAMPING * diagonal.mean(1, keepdim=True) + _DAMPING_OVERALL * diagonal.mean()
    damped = moments + torch.diag_embed((damping + 1e-12).expand_as(diagonal))
    # Columns that matter most first, while there are others left to make up for their error.
    order = diagonal.argsort(dim=1, descending=True, stable=True)
    size = order.shape[1]
    damped = damped.gather(1, order[:, :, None].expand(-1, -1, size))
    damped = damped.gather(2, order[:, None, :].expand(-1, size, -1))
    try:
        return order, _inverse_factor(damped)
    except RuntimeError:  # not definite in single precision
        return order, _inverse_factor(damped.double()).float()


def _inverse_factor(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor of the inverse."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky((inverse + inverse.mT) / 2, upper=True)


def _quantise(
    weight: Tensor, tables: Tensor, table_of: Tensor, order: Tensor, factor: Tensor
) -> Tensor:
    groups, channels, size = weight.shape
    places = order[:, None, :].expand(-1, channels, -1)
    free = weight.gather(2, places)
    edges = ((tables[:, 1:] + tables[:, :-1]) / 2)[table_of.flatten()].contiguous()
    entries = tables[table_of.flatten()]
    chosen = torch.empty(weight.shape, dtype=torch.long)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        block = free[:, :, start:end].clone()
        errors = torch.empty_like(block)
        for column in range(start, end):
            value = block[:, :, column - start].reshape(-1, 1).contiguous()
            index = torch.searchsorted(edges, value)
            chosen[:, :, column] = index.view(groups, channels)
            error = (value - entries.gather(1, index)).view(groups, channels)
            error = error / factor[:, column, column, None]
            errors[:, :, column - start] = error
            pushed = factor[:, column, None, column + 1 : end]
            block[:, :, column + 1 - start :] -= error[:, :, None] * pushed
        free[:, :, end:] -= errors @ factor[:, start:end, end:]
    return torch.empty_like(chosen).scatter_(2, places, chosen)


def _fit_tables(weight: Tensor, moments: Tensor, rows: Tensor, codes: Codes) -> Tensor:
    """Return the tables with the least error of the outputs, by conjugate gradients."""
    shape = codes.tables.shape
    slots = (codes.indices + codes.table_of[:, :, None] * shape[1]).flatten()

    def gathered(values: Tensor) -> Tensor:
        weighted = (rows[:, :, None] * values).flatten()
        return torch.zeros(codes.tables.numel()).index_add_(0, slots, weighted)

    def spread(table: Tensor) -> Tensor:
        return table[slots].view(weight.shape)

    diagonal = moments.diagonal(dim1=1, dim2=2)[:, None, :]
    curvature = gathered(diagonal.expand(weight.shape))
    scale = torch.where(curvature > 0, 1 / curvature.clamp(min=1e-30), torch.zeros(()))
    table = codes.tables.flatten().clone()
    residual = gathered((weight - spread(table)) @ moments)
    scaled = scale * residual
    direction, energy = scaled.clone(), residual @ scaled
    enough = 1e-8 * energy
    for _ in range(_CONJUGATE_STEPS):
        if energy <= enough:
            break
        image = gathered(spread(direction) @ moments)
        step = energy / (direction @ image)
        table += step * direction
        residual -= step * image
        scaled = scale * residual
        previous, energy = energy, residual @ scaled
        direction = scaled + energy / previous * direction
    return table.view(shape)


def _sorted(codes: Codes) -> Codes:
    tables, order = codes.tables.sort(dim=1, stable=True)
    places = order.argsort(dim=1)
    indices = places[codes.table_of[:, :, None], codes.indices]
    return Codes(tables, indices, codes.table_of)
