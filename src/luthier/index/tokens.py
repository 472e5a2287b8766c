"""How many tokens a text has, estimated without a tokenizer.

Chunking and prompt budgets must work before any model is loaded and must not depend on one. The estimate counts
WordPiece-like pieces of words and errs upwards: measured against all-MiniLM-L6-v2's tokenizer (docs/index.md).
"""

from __future__ import annotations

import re

_PIECE = re.compile(
    r"[぀-ヿ㐀-鿿가-힯]"  # Chinese, Japanese and Korean: about one token a character
    r"|\d+|[^\W\d_]+|[^\s\w]|_"
)


def estimate_tokens(text: str) -> int:
    """Estimated number of sub-word tokens of `text`, special tokens not counted."""
    total = 0
    for match in _PIECE.finditer(text):
        piece = match.group()
        size = len(piece)
        if piece[0].isdigit():
            total += -(-size // 3)
        elif size <= 6:
            total += 1
        else:
            total += 1 + -(-(size - 6) // 5)
    return total
