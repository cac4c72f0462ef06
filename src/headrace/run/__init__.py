"""One run of a loader: settings, order, loop, window, checkpoint."""
