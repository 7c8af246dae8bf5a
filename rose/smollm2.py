"""`python -m rose.fetch.smollm2` under its first name."""

from rose.fetch.smollm2 import main

if __name__ == "__main__":
    main()
