"""Notebooks that run by themselves: papermill's engines of ipytune, and what they share.

    papermill in.ipynb out.ipynb --engine hub -p profile gpu-1      in a session of a hub, started and stopped for it
    papermill in.ipynb out.ipynb --engine resumable                 here, so that a failed run can be gone on with

papermill is imported first, before any module of this package: it loads every engine that is installed while it is
imported itself, and would find half a module if it were imported from within one of ours.
"""

import papermill  # noqa: F401
