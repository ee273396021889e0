"""One script a claim: each measures, compares with the stock peer, and writes a JSON to results/."""
