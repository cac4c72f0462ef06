"""HOW a batch comes back from another process: in shared memory that is used again, with a few bytes on a socket."""
