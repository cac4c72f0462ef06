"""HOW a batch comes back from whoever made it."""
