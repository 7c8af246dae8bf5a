"""`python -m rose.run.plan` under its first name."""

from rose.run.plan import main

if __name__ == "__main__":
    main()
