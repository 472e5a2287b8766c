"""Searchers: one file each, registered at the `SEARCHERS` seam of `luthier.tune.seams`."""
