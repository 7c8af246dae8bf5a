"""python -m rose.plan: a sweep as a graph; it is rose/run/plan.py."""

from rose.run.plan import main

if __name__ == "__main__":
    main()
