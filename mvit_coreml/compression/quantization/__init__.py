"""W8A8: 8-bit activations and weights, so that convolutions compute in integers."""
