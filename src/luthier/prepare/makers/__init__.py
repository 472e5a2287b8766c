"""What makes examples: one maker a file, each registered at the `MAKERS` seam of `luthier.prepare.base`."""
