"""One prompt to several endpoints: conversations, blind votes, differences, exports. No widget, no torch.

    from ipytune.compare import Comparison

    comparison = Comparison([base, tuned], temperature=0)
    comparison.ask("two nodes, four GPUs each, three hours")
    print(comparison.to_json("comparison.json"))

`ipytune.widgets.ComparePanel` is the view over it; `ipytune compare` the same in a terminal.
"""

from ipytune.compare.comparison import Comparison
from ipytune.compare.dialogue import Dialogue, Round, Terms
from ipytune.compare.parameters import Parameters

__all__ = ["Comparison", "Dialogue", "Parameters", "Round", "Terms"]
