"""The notebooks, run as a nightly job would run them: `python -m tests.notebooks` (`make notebooks`), and its parts.

structure.py      the notebook in git: parts, ids, prose, no outputs                              pure
expectations.py   beside each notebook: budgets, and what its numbers must be                     pure
executed.py       the executed notebook: every cell ran, no error                                 pure
leaks.py          no secret and no absolute path in what it shows                                 pure
skips.py          what is not run, why, and until when                                            pure
schedule.py       which may run beside each other                                                 pure
process.py        one run: a process in a folder of its own, its time and its memory
judge.py          one run and all of the above: an outcome
gallery.py        the outcomes and the executed notebooks as HTML
"""
