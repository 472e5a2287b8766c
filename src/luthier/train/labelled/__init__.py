"""Training of labelled tasks: rows into batches, the job that a strategy hands around, one fit from start to end."""
