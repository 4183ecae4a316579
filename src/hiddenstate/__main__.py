"""`python -m hiddenstate` is the same as `hiddenstate`."""

from hiddenstate.cli.main import main

if __name__ == "__main__":
    main()
