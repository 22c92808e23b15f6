"""Entry point of envd in the guest: says where its packages are and runs it.

Written by the image build into the runtime image. `-I -S` leave only the standard library on
`sys.path`; envd and its wheels lie beside the interpreter.
"""

from __future__ import annotations

import runpy
import sys

sys.path += ["/.emberbox/wheels", "/.emberbox"]
runpy.run_module("emberbox.envd", run_name="__main__", alter_sys=True)
