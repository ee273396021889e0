"""`python -m ipytune`: the command line, where the console script is not on the path."""

from ipytune.cli import app

app(prog_name="ipytune")
