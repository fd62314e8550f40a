"""Palettes: the weights of a tensor replaced by indices into a small lookup table (LUT)."""
