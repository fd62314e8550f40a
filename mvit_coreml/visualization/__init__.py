"""Class maps and what they look like: colours, overlays, legends."""
