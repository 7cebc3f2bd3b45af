"""Imported by conftest before the package: every call then checks the types and shapes it says.

Jitted functions are checked where they are traced. Here and not by jaxtyping's option of pytest,
which the processes of xdist would not see.
"""

import random
from unittest.mock import patch

from jaxtyping import install_import_hook

# Of a long sequence beartype looks at an item by chance, for which it gets a generator of its own:
# hypothesis forbids strategies the common one.
with patch("random.getrandbits", random.Random(0).getrandbits):
    import beartype  # noqa: F401

_CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # 1 is a float

install_import_hook("evojax_art", _CHECKER)
