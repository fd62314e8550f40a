"""Comparing a package with its reference: answers, structure, weights, gates."""
