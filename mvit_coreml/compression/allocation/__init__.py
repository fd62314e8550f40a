"""Sharing out bits among weights: sensitivity, sizes, promises."""
