"""The first name of `python -m rose.duel`."""

from rose.duel import main

if __name__ == "__main__":
    main()
