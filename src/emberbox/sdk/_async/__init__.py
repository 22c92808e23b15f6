"""The asynchronous SDK: the hand-written source that `scripts/unasync.py` makes `_sync` from.

`transport.py`, `consuming.py` and `flavour.py` differ in kind between the flavours, so they are
written by hand in both packages and offer the same names.
"""

from __future__ import annotations
