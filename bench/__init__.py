"""Speed and accuracy of the gradient engine beside others'."""

import rose  # noqa: F401 — its surroundings, before anything else is imported
