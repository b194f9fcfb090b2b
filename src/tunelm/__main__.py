"""`python -m tunelm` is the command `tunelm`."""

from tunelm.cli import main

main()
