"""Formats of shards, a file for each: where every field of every sample lies, without reading the samples."""
