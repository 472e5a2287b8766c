"""Updates: what changed, a challenger trained from the live model, the gate, and the queue that runs it by itself."""
