"""`python -m tokenlm VERB ...`, and so `accelerate launch -m tokenlm VERB ...`."""

from tokenlm.cli import main

if __name__ == "__main__":
    main()
