"""GPTQ for lookup tables: the indices and entries of a weight with the least error of its outputs.

The error of a layer is E H Eᵀ for each output channel, with E the error of its weights and H the
second moments of its inputs. Columns are quantised one by one, each pushing its error onto those
that are still free, as in GPTQ (Frantar et al., 2022, arXiv:2210.17323), which goes back to the
optimal brain surgeon. Here the levels are a lookup table's instead of a grid's, and the table is
refitted to the indices in turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvit_coreml.compression.calibration.linear_layers import Layer
from mvit_coreml.compression.kmeans import optimal_palette
from mvit_coreml.compression.palettized_weight import Choice, PalettizedWeight
from mvit_coreml.errors import errors_at

# Columns whose error is pushed on at once.
_BLOCK = 64
_CONJUGATE_STEPS = 6
# Relative to the mean of the diagonal, added to it for a stable factorisation.
_DAMPING = 0.01
_DAMPING_OVERALL = 1e-4
# How often indices and tables are improved in turn.
_ROUNDS = 2
_PLENTY_OF_BITS = 8
# Part of the moments' off-diagonal that choosing indices does not count on.
SHRINKAGE = 0.1
# What an input counts at least, relative to the mean of all.
_DEAD = 1e-2


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


def palettize_layer(
    layer: Layer,
    target: Tensor,
    moments: Tensor,
    rows: Tensor,
    choice: Choice,
    dtype: np.dtype[Any],
    shrinkage: float = SHRINKAGE,
) -> PalettizedWeight:
    """Palettize one weight for the least error of its layer's outputs.

    Args:
        layer: that the weight is of.
        target: (G, O, K) fp32 weight to come close to.
        moments: (G, K, K), of the layer's inputs.
        rows: (G, O), what errors of output channels count.
        choice: bits and groups; not uncompressed.
        dtype: of the tables.
        shrinkage: part of the correlations of inputs that is not counted on, 0 to 1.

    Raises:
        InputError: the groups do not divide the output channels.
    """
    with errors_at(f"weight {layer.weight!r}"):
        choice.check_channels(layer.channels)
    shrunk = shrunk_moments(moments, shrinkage)
    start = _clustered(target, shrunk, rows, choice, dtype)
    rounded = torch.float16 if dtype == np.float16 else torch.float32
    # With so many levels what k-means leaves is next to nothing beside the other weights' error.
    rounds = 0 if (choice.bits or 0) >= _PLENTY_OF_BITS else _ROUNDS
    codes = improve_codes(target, shrunk, rows, start, rounded, rounds)
    indices = layer.weight_of(codes.indices).contiguous().numpy().astype(np.uint8)
    return PalettizedWeight(codes.tables.numpy().astype(dtype), indices, layer.axis)


def output_error(error: Tensor, moments: Tensor, rows: Tensor) -> float:
    """Return the error of a layer's outputs.

    Args:
        error: (G, O, K), of the weights.
        moments: (G, K, K), of the inputs.
        rows: (G, O), what the errors of each output channel count.
    """
    return float((rows[:, :, None] * (error @ moments) * error).sum())


def improve_codes(
    weight: Tensor, moments: Tensor, rows: Tensor, start: Codes, rounded: torch.dtype, rounds: int
) -> Codes:
    """Improve the codes of a weight matrix: indices by error feedback, tables by least squares.

    Args:
        weight: (G, O, K) fp32.
        moments: (G, K, K) fp32, positive semidefinite.
        rows: (G, O), what the errors of each output channel count.
        start: codes to improve.
        rounded: float16 or float32: the type that tables are stored in.
        rounds: how often to do both.

    Returns:
        The best codes met, ``start`` included, by the error of the outputs.
    """
    if not rounds:
        return start
    order, factor = _feedback(moments)
    best, least = start, output_error(weight - start.decode(), moments, rows)
    tables = start.tables
    for _ in range(rounds):
        indices = _quantise(weight, tables, start.table_of, order, factor)
        fitted = _fit_tables(weight, moments, rows, Codes(tables, indices, start.table_of))
        codes = _sorted(Codes(fitted.to(rounded).float(), indices, start.table_of))
        error = output_error(weight - codes.decode(), moments, rows)
        if not error < least:
            break
        best, least, tables = codes, error, codes.tables
    return best


def round_to_tables(
    weight: Tensor, tables: Tensor, table_of: Tensor, moments: Tensor, rows: Tensor
) -> Tensor:
    """Choose entries of given tables, by error feedback where that is closer than the nearest.

    Args:
        weight: (G, O, K) fp32.
        tables: (T, entries) ascending.
        table_of: (G, O), the table of each output channel.
        moments: (G, K, K) fp32, positive semidefinite.
        rows: (G, O), what the errors of each output channel count.

    Returns:
        (G, O, K) int64 places in the tables.
    """
    edges = (tables[:, 1:] + tables[:, :-1]) / 2
    by_row = weight.reshape(-1, weight.shape[2]).contiguous()
    nearest = torch.searchsorted(edges[table_of.flatten()].contiguous(), by_row).view(weight.shape)
    fed_back = _quantise(weight, tables, table_of, *_feedback(moments))
    errors = [
        output_error(weight - Codes(tables, places, table_of).decode(), moments, rows)
        for places in (fed_back, nearest)
    ]
    return fed_back if errors[0] < errors[1] else nearest


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

    def scattered(table: Tensor) -> Tensor:
        return table[slots].view(weight.shape)

    diagonal = moments.diagonal(dim1=1, dim2=2)[:, None, :]
    curvature = gathered(diagonal.expand(weight.shape))
    scale = torch.where(curvature > 0, 1 / curvature.clamp(min=1e-30), torch.zeros(()))
    table = codes.tables.flatten().clone()
    residual = gathered((weight - scattered(table)) @ moments)
    scaled = scale * residual
    direction, energy = scaled.clone(), residual @ scaled
    enough = 1e-8 * energy
    for _ in range(_CONJUGATE_STEPS):
        if energy <= enough:
            break
        image = gathered(scattered(direction) @ moments)
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


def shrunk_moments(moments: Tensor, part: float = SHRINKAGE) -> Tensor:
    """Trust the calibration images less: in the correlations of inputs, and in dead inputs.

    What only inputs that are next to nothing use would otherwise be free to be anything.
    """
    diagonal = moments.diagonal(dim1=1, dim2=2)
    floor = _DEAD * diagonal.mean(1, keepdim=True) + 1e-12
    return (1 - part) * moments + torch.diag_embed(part * diagonal + floor)


def _clustered(
    target: Tensor, moments: Tensor, rows: Tensor, choice: Choice, dtype: np.dtype[Any]
) -> Codes:
    """Return the codes of k-means weighted by the moments' diagonal, for each group of channels."""
    diagonal = moments.diagonal(dim1=1, dim2=2)[:, None, :]
    elements = rows[:, :, None] * (diagonal + 0.01 * diagonal.mean())
    groups, channels, size = target.shape
    shared = choice.group_size or groups * channels
    tables, indices = [], []
    for values, weights in zip(
        target.reshape(-1, shared, size).numpy(),
        elements.expand_as(target).reshape(-1, shared, size).numpy(),
        strict=True,
    ):
        palette = optimal_palette(values, 2 ** (choice.bits or 0), weights, dtype=dtype)
        tables.append(torch.from_numpy(palette.lut.astype(np.float32)))
        indices.append(torch.from_numpy(palette.indices.astype(np.int64)))
    return Codes(
        torch.stack(tables),
        torch.cat(indices).reshape(target.shape),
        (torch.arange(groups * channels) // shared).reshape(groups, channels),
    )
