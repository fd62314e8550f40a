"""Which files of tests start first."""

from __future__ import annotations

# These take longest: no worker is left alone with one of them at the end.
LONGEST = (
    "tests/swift/test_swift_demo.py",
    "tests/test_docs.py",
    "tests/validation/test_faults.py",
    "tests/workflows/test_palettize.py",
    "tests/cli/test_palettize.py",
    "tests/cli/test_reports.py",
    "tests/export/test_torch_to_mil.py",
    "tests/export/test_graph_passes.py",
    "tests/export/test_output_heads.py",
)
