"""`python scripts/compare.py FOLDER ...` does what `bn-inception compare FOLDER ...` does."""

import sys

from bn_inception.cli.main import main

if __name__ == "__main__":
    main(["compare", *sys.argv[1:]])
