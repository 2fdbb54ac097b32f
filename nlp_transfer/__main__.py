"""``python -m nlp_transfer`` is the ``nlp-transfer`` command."""

import sys

from nlp_transfer.cli import main

sys.exit(main())
