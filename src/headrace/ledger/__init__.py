"""Records of what a training loop received, proofs from them, and comparisons of two runs."""
