"""Bytes -> pixels: decoding, geometry, transforms."""
