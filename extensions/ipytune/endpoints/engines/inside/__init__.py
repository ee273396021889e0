"""What runs inside an engine, also in one of another environment, where there is no ipytune: standard library only.

For such an engine this folder itself is on the PYTHONPATH, and the module is imported by its bare name.
"""
