"""Speed and accuracy of the gradient engine beside others'."""
