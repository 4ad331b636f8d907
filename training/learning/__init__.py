"""The losses and the training loop."""
