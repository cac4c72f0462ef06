"""Batches made in worker processes: pool (which there are, who makes what), worker (the child), start, deaths."""
