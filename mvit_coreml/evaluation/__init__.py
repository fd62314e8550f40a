"""Accuracy on labelled images, of packages and of their PyTorch references."""
