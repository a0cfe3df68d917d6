"""`python -m melody_diffusers.cli`, for launchers that want a module."""

import sys

from . import main

sys.exit(main())
