"""Engines turn prompts into tokens; one file each. The contract is in `base`."""
