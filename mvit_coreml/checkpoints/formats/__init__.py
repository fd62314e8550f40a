"""Weight formats: Hugging Face transformers, timm, Apple cvnets."""
