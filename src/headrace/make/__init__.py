"""From keys to a batch."""
