"""Which files of tests start first, and which `make test-fast` reads at all."""

from __future__ import annotations

from pathlib import Path

# These take longest: no worker is left alone with one of them at the end.
LONGEST = (
    "tests/swift/test_swift_demo.py",
    # It runs the demo, which others wait for.
    "tests/test_docs.py",
    "tests/validation/test_faults.py",
    "tests/workflows/test_convert.py",
    "tests/cli/test_palettize.py",
    "tests/validation/test_decoded_weights.py",
    "tests/export/test_torch_to_mil.py",
    "tests/cli/test_convert.py",
    "tests/validation/test_validate.py",
    # It takes measurements from the other's, and would wait for them.
    "tests/workflows/test_palettize.py",
    "tests/compression/test_reconstruction.py",
    "tests/workflows/test_fit_palettes.py",
    "tests/demo/test_run_demo.py",
    "tests/workflows/test_promises.py",
    "tests/cli/test_json.py",
    "tests/cli/test_reports.py",
    "tests/workflows/test_tradeoff.py",
    "tests/models/test_parity.py",
    "tests/cli/test_build.py",
    "tests/workflows/test_recipe_build.py",
    "tests/export/test_output_heads.py",
    "tests/test_trained_checkpoints.py",
    "tests/cli/test_evaluate.py",
    "tests/workflows/test_mixed_precision.py",
    "tests/export/test_graph_passes.py",
    "tests/mil/test_models.py",
    "tests/evaluation/test_accuracy.py",
    "tests/export/test_coremltools_import.py",
    "tests/workflows/test_plans.py",
    "tests/export/test_atomic_package.py",
)


def is_fast(path: Path) -> bool:
    """Tell whether a file has tests marked ``fast``, without importing what it tests."""
    return "pytest.mark.fast\n" in path.read_text(encoding="utf-8")
