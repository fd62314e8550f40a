"""What segmentation maps look like: colours, overlays, legends."""
