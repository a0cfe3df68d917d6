"""`python -m melody_diffusers`: the `melody` command, where no script of that name is on the search path."""

import sys

from .cli import main

sys.exit(main())
