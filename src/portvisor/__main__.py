"""`python -m portvisor`: the command line."""

from portvisor.cli.main import main

if __name__ == "__main__":
    main()
