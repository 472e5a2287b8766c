"""A stream of unknown documents: what each is, which fields it holds, which data set it belongs to."""
