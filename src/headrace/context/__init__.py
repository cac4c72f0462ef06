"""What a thread works on: random numbers, timing, memory, tracing, worker."""
