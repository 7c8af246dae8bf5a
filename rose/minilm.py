"""`python -m rose.fetch.minilm` under its first name."""

from rose.fetch.minilm import main

if __name__ == "__main__":
    main()
