"""Samples -> batch, in lent memory."""
