"""Notebooks as batch jobs, without a hub: `ipytune submit`, `results`, `cancel`.

A batch is a directory (`directory`): one notebook and its sets of parameters. Who runs it (`jobs`) is a Slurm
array, some Kubernetes Jobs, or processes of this session; inside, `work` runs one set after the other.
"""
