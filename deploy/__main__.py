"""`python -m deploy` is `slimrec`."""

from deploy.cli import main

if __name__ == "__main__":
    main()
