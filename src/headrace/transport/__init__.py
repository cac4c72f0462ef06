"""HOW a batch comes back from another process: in reused shared memory, with a few bytes on a socket."""
