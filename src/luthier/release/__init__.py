"""Release: the gate a model passes, the export with its parity check, and the folder that `serve` answers from."""
