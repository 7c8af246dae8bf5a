"""Exact per-example LoRA gradients, what Adam would make of them, their projection and their store."""
