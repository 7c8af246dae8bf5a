"""python -m rose.data: what a file is taken for; it is rose/run/look.py."""

from rose.run.look import main

if __name__ == "__main__":
    main()
