"""The executor of actors on a Ray cluster: cluster_options, actors (the executor), connection, remote_worker."""
