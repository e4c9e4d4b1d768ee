"""`python -m autocoder.core.cli`, as in the predecessor."""

from autocoder.core.cli import main

main()
