"""Fitting palettes to a calibration set: moments, GPTQ, reconstruction, fine-tuning."""
