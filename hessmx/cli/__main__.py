"""`python -m hessmx.cli`, for checkouts that are not installed."""

import sys

from hessmx.cli import main

sys.exit(main())
