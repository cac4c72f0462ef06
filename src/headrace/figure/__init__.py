"""`headrace.show`: a figure of a batch, a loader or a dataset, for notebooks and files."""
