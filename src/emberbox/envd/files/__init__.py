"""GET and POST /files: whole files, streamed."""

from __future__ import annotations
