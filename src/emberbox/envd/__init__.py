"""envd, the daemon inside every VM: processes, files, metrics and port bridging.

It runs from the runtime image with its own interpreter, so it imports the standard library,
the wheels of the `envd` dependency group and the generated `emberbox._gen.envd`, nothing else.
"""

from __future__ import annotations
