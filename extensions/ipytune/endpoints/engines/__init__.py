"""The engines behind `serve`: which one is chosen and why, how each is started, watched, explained and ended.

facts, shape   what there is: GPUs, vLLM, memory; the model's heads and bytes        (edges, with pure parsers)
choose         which engine, on which GPUs, with how much of their memory            (pure)
vllm, transformers   the command and environment of each                             (pure)
kept, keeper   the process that never outlives its caller, and neither do its own    (edges)
log            its log as progress, and its end as cause and remedy                  (pure)
jupyter, gate  the way in from a browser and from other sessions, by the Jupyter server's own authentication
"""
