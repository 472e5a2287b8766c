"""Review: a person looks at what the stages are unsure of, and decides."""
