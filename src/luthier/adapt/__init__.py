"""From a base model to one that can be trained: adapter or full, chat template, stop tokens, export."""
