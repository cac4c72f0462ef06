"""The executor on a Ray cluster: cluster_options and shared_pool (what users pass), actors (the executor), the rest."""
