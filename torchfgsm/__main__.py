"""`python -m torchfgsm`: the command line."""

import sys

from torchfgsm.cli import main

sys.exit(main())
