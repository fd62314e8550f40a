"""Recipes: packages that are built again from a description."""
