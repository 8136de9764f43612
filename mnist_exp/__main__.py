"""python -m mnist_exp"""

import sys

from mnist_exp.cli import main

sys.exit(main())
