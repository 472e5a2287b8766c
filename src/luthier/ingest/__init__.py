"""From files to documents: text in reading order, with structure and positions. `base.py` is the contract."""
