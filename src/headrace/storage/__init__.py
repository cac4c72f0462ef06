"""Files and byte ranges."""
