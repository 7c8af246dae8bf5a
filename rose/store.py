"""`python -m rose.stages` under its first name."""

from rose.stages.__main__ import main

if __name__ == "__main__":
    main()
