"""`python -m bn_inception <command> ...` does what `bn-inception <command> ...` does."""

from bn_inception.cli.main import main

if __name__ == "__main__":
    main()
