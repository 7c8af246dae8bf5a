"""Rose: which few percent of an instruction pool to fine-tune on, chosen by influence on a preference loss."""
