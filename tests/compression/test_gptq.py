"""Tables and indices chosen for a layer's outputs, against brute force and numpy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from mvit_coreml.compression.calibration import gptq as module
from mvit_coreml.compression.calibration.gptq import Codes, improve_codes, output_error
from mvit_coreml.compression.kmeans import optimal_palette

pytestmark = pytest.mark.fast


def problem(
    groups: int, channels: int, columns: int, seed: int, samples: int = 200
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return a weight, correlated inputs (G, K, S), their moments, and what rows count."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(groups, columns, columns, generator=generator)
    inputs = mixed @ torch.randn(groups, columns, samples, generator=generator) + 0.5
    weight = torch.randn(groups, channels, columns, generator=generator)
    rows = 0.2 + torch.rand(groups, channels, generator=generator)
    return weight, inputs, inputs @ inputs.mT, rows


def clustered(weight: Tensor, entries: int, tables: int = 1) -> Codes:
    """Cluster a weight by k-means, an equal part of the output channels for each table."""
    parts = weight.reshape(tables, -1, weight.shape[2]).numpy()
    found = [optimal_palette(part, entries, dtype=np.float32) for part in parts]
    channels = weight.shape[0] * weight.shape[1]
    return Codes(
        torch.stack([torch.from_numpy(palette.lut) for palette in found]),
        torch.stack(
            [torch.from_numpy(palette.indices.astype(np.int64)) for palette in found]
        ).reshape(weight.shape),
        (torch.arange(channels) * tables // channels).reshape(weight.shape[:2]),
    )


def brute_error(weight: Tensor, found: Tensor, inputs: Tensor, rows: Tensor) -> float:
    outputs = ((weight - found).double() @ inputs.double()).square().sum(2)
    return float((rows * outputs).sum())


def least_squares(
    weight: np.ndarray, inputs: np.ndarray, rows: np.ndarray, indices: np.ndarray, entries: int
) -> tuple[np.ndarray, float]:
    """Return the one table for all of (O, K) weights that gives the outputs best, and its error."""
    design = np.zeros((*weight.shape, entries))
    np.put_along_axis(design, indices[..., None], 1.0, 2)
    scale = np.sqrt(rows)[:, None, None]
    shaped = (scale * np.einsum("oke,ks->ose", design, inputs)).reshape(-1, entries)
    wanted = (scale[..., 0] * (weight @ inputs)).reshape(-1)
    table, *_ = np.linalg.lstsq(shaped, wanted, rcond=None)
    return table, float(np.square(shaped @ table - wanted).sum())


def test_the_output_error_is_that_of_the_products() -> None:
    weight, inputs, moments, rows = problem(3, 4, 6, 0)
    changed = weight + 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
    found = output_error(weight - changed, moments, rows)
    assert found == pytest.approx(brute_error(weight, changed, inputs, rows), rel=1e-4)


def test_decoding_takes_each_channels_own_table() -> None:
    tables = torch.tensor([[0.0, 1.0], [10.0, 20.0]])
    indices = torch.tensor([[[0, 1], [1, 1]], [[1, 0], [0, 0]]])
    codes = Codes(tables, indices, torch.tensor([[0, 1], [1, 0]]))
    assert codes.decode().tolist() == [[[0, 1], [20, 20]], [[20, 10], [0, 0]]]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tables", [1, 2, 4])
def test_codes_never_get_worse_and_tables_stay_ascending(seed: int, tables: int) -> None:
    weight, inputs, moments, rows = problem(2, 4, 12, seed)
    start = clustered(weight, 4, tables)
    found = improve_codes(weight, moments, rows, start, torch.float32, 3)
    before = brute_error(weight, start.decode(), inputs, rows)
    assert brute_error(weight, found.decode(), inputs, rows) <= before
    assert bool((found.tables.diff(dim=1) >= 0).all())
    assert int(found.indices.min()) >= 0
    assert int(found.indices.max()) < 4
    assert torch.equal(found.table_of, start.table_of)


def test_codes_for_correlated_inputs_are_far_better_than_the_nearest_entries() -> None:
    ratios = []
    for seed in range(8):
        weight, inputs, moments, rows = problem(1, 16, 32, seed)
        start = clustered(weight, 8)
        found = improve_codes(weight, moments, rows, start, torch.float32, 2)
        ratios.append(
            brute_error(weight, found.decode(), inputs, rows)
            / brute_error(weight, start.decode(), inputs, rows)
        )
    assert max(ratios) < 0.7
    assert np.mean(ratios) < 0.55


def test_perfect_codes_are_kept() -> None:
    weight, _, moments, rows = problem(1, 3, 5, 0)
    start = clustered(weight.round(), 16)
    assert torch.equal(start.decode(), weight.round())
    assert improve_codes(weight.round(), moments, rows, start, torch.float32, 2) is start


def exhaustive(weight: Tensor, inputs: Tensor, rows: Tensor, entries: int) -> float:
    """Return the least error that any table with any indices has."""
    shape = weight.shape[1:]
    return min(
        least_squares(
            weight[0].double().numpy(),
            inputs[0].double().numpy(),
            rows[0].double().numpy(),
            np.array(indices).reshape(shape),
            entries,
        )[1]
        for indices in product(range(entries), repeat=shape.numel())
    )


@pytest.mark.parametrize(("channels", "columns", "entries"), [(2, 3, 2), (3, 2, 2), (2, 2, 3)])
def test_tiny_problems_are_solved_almost_as_well_as_possible(
    channels: int, columns: int, entries: int
) -> None:
    equal, ratios, before = 0, [], []
    for seed in range(12):
        weight, inputs, moments, rows = problem(1, channels, columns, seed, samples=8)
        best = exhaustive(weight, inputs, rows, entries)
        start = clustered(weight, entries)
        found = improve_codes(weight, moments, rows, start, torch.float32, 4)
        error = brute_error(weight, found.decode(), inputs, rows)
        assert error >= best * (1 - 1e-3) - 1e-5
        ratios.append(error / max(best, 1e-6))
        before.append(brute_error(weight, start.decode(), inputs, rows) / best)
        equal += error <= best * 1.001 + 1e-5
    # The optimum in 5, 10 and 12 of 12 cases; the rest end in a local one.
    assert equal >= 5
    assert np.exp(np.log(ratios).mean()) < 1.6
    assert np.exp(np.log(before).mean()) > 1.4 * np.exp(np.log(ratios).mean())


@pytest.mark.parametrize("tables", [1, 2])
def test_tables_are_least_squares_solutions_for_their_indices(tables: int) -> None:
    weight, inputs, moments, rows = problem(1, 8, 12, 3)
    found = improve_codes(weight, moments, rows, clustered(weight, 4, tables), torch.float32, 1)
    for table in range(tables):
        used = slice(table * 8 // tables, (table + 1) * 8 // tables)
        wanted, _ = least_squares(
            weight[0, used].double().numpy(),
            inputs[0].double().numpy(),
            rows[0, used].double().numpy(),
            found.indices[0, used].numpy(),
            4,
        )
        np.testing.assert_allclose(found.tables[table].numpy(), wanted, rtol=2e-3, atol=2e-3)


def test_a_table_that_groups_of_inputs_share_is_the_least_squares_solution() -> None:
    weight, inputs, moments, rows = problem(3, 2, 6, 4)
    found = improve_codes(weight, moments, rows, clustered(weight, 4), torch.float32, 1)
    # Side by side, the groups are one problem whose inputs do not mix.
    design = np.zeros((*weight.shape, 4))
    np.put_along_axis(design, found.indices.numpy()[..., None], 1.0, 3)
    scale = rows.sqrt().double().numpy()[..., None]
    seen = inputs.double().numpy()
    shaped = np.einsum("goke,gks->gose", design, seen) * scale[..., None]
    wanted = scale * (weight.double().numpy() @ seen)
    table, *_ = np.linalg.lstsq(shaped.reshape(-1, 4), wanted.ravel(), rcond=None)
    np.testing.assert_allclose(found.tables[0].numpy(), table, rtol=2e-3, atol=2e-3)


def test_tables_are_rounded_to_the_type_they_are_stored_in() -> None:
    weight, _, moments, rows = problem(1, 8, 12, 3)
    start = clustered(weight, 4)
    found = improve_codes(weight, moments, rows, start, torch.float16, 2)
    assert found is not start
    assert torch.equal(found.tables, found.tables.half().float())


def test_unimportant_rows_do_not_shape_the_table() -> None:
    weight, _, moments, _ = problem(1, 4, 6, 5)
    weight[0, 3] *= 100
    rows = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    start = clustered(weight[:, :3], 4)
    padded = Codes(
        start.tables, torch.cat([start.indices, start.indices[:, :1]], 1), torch.zeros(1, 4).long()
    )
    alone = improve_codes(weight[:, :3], moments, rows[:, :3], start, torch.float32, 1)
    together = improve_codes(weight, moments, rows, padded, torch.float32, 1)
    torch.testing.assert_close(together.tables, alone.tables, rtol=1e-3, atol=1e-3)


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight, inputs, _, rows = problem(2, 4, 6, 6)
    inputs[0] = 0
    inputs[1, 2] = 0
    moments = inputs @ inputs.mT
    start = clustered(weight, 4)
    found = improve_codes(weight, moments, rows, start, torch.float32, 2)
    assert bool(torch.isfinite(found.decode()).all())
    error = brute_error(weight, found.decode(), inputs, rows)
    assert error < brute_error(weight, start.decode(), inputs, rows)


def test_sorting_tables_changes_no_weight() -> None:
    tables = torch.tensor([[3.0, 1.0, 2.0], [4.0, 6.0, 5.0]])
    indices = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    codes = Codes(tables, indices, torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0]]))
    found = module._sorted(codes)
    assert found.tables.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert torch.equal(found.decode(), codes.decode())


def pushed_one_by_one(weight: np.ndarray, moments: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Quantise (O, K) weights as the optimal brain surgeon does, column after column.

    Of the columns still free the inverse moments are inverted anew each time.
    """
    weight, found = weight.copy(), np.zeros(weight.shape, np.int64)
    diagonal = np.diag(moments)
    damped = moments + (0.01 + 1e-4) * diagonal.mean() * np.eye(len(diagonal))
    free = list(np.argsort(-diagonal, kind="stable"))
    while free:
        column = free[0]
        found[:, column] = np.abs(weight[:, column, None] - table).argmin(1)
        error = weight[:, column] - table[found[:, column]]
        inverse = np.linalg.inv(damped[np.ix_(free, free)])
        weight[:, free] -= np.outer(error, inverse[0] / inverse[0, 0])
        free = free[1:]
    return found


@pytest.mark.parametrize("columns", [20, 150])
def test_indices_are_those_of_the_optimal_brain_surgeon(columns: int) -> None:
    weight, _, moments, rows = problem(1, 6, columns, 1, samples=2 * columns)
    start = clustered(weight, 8)
    found = improve_codes(weight, moments, rows, start, torch.float32, 1)
    assert found is not start
    wanted = pushed_one_by_one(
        weight[0].double().numpy(), moments[0].double().numpy(), start.tables[0].double().numpy()
    )
    # A rounding error that tips one element tips others of its row.
    assert (found.indices[0].numpy() == wanted).mean() > 0.97
    assert (start.indices[0].numpy() == wanted).mean() < 0.9
