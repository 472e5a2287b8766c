"""Search over passages: dense and keyword ranks, fused; and the one place where passages become a prompt."""
