"""What `headrace.show` returns: a batch, a loader or a dataset to look at, in a notebook or as a file."""
