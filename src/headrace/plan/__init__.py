"""WHAT comes next, as pure functions: orders, and the batches cut from them."""
