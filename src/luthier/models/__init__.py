"""Where models come from and how text comes out of them; below every stage, so that all of them share it."""
