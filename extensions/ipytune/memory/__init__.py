"""Whether a run fits before it starts: what it needs, what there is, and the smallest change that would help."""
