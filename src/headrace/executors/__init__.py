"""WHO makes the batches: the loop itself, or threads; one interface, one conformance suite."""
