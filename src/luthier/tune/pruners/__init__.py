"""Pruners: one file each, registered at the `PRUNERS` seam of `luthier.tune.seams`."""
