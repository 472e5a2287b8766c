"""Text recognition: pages that are pictures become lines with places and confidence, then spans in reading order."""
