"""`python scripts/train.py key=value ...` (or torchrun) does what `bn-inception train` does."""

import sys

from bn_inception.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
