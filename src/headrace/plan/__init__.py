"""WHAT comes next, as pure functions: orders, and batches cut from them."""
