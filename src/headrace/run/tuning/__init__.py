"""What ``num_workers="auto"`` does: it measures settings of the workers while a loop runs, and keeps the best one."""
