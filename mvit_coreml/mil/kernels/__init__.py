"""MIL operations with torch as the arithmetic, one module for each kind.

A kernel is a plain function. Its positional parameters are the tensors of the operation, its
keyword-only parameters the attributes as Python values, both named as in MIL. Semantics follow
the documentation of coremltools' operation definitions (``converters/mil/mil/ops/defs``).
"""
