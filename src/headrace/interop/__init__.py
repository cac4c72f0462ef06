"""What other libraries hand over: generators, floats, ranks, indices, functions."""
