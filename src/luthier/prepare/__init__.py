"""From documents to passages and examples: cleaning, chunking, duplicates, the frozen split, makers, the data card."""
