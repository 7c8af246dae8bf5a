"""Exact per-example LoRA gradients: taken, made Adam's updates, projected, and kept."""
