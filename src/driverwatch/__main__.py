"""`python -m driverwatch`: the command line."""

from driverwatch.cli.main import main

if __name__ == "__main__":
    main()
