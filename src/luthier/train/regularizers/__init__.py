"""Regularizers: one file each, registered at the `REGULARIZERS` seam of `luthier.train.seams`."""
