"""Runs inside an image, fed with a lock on standard input: prints, as JSON, where what is installed differs from it.

Markers are judged here, by the image's own Python. Standard library and `packaging` (which every lock has) only.
"""

import json
import sys
from importlib import metadata

from packaging.requirements import Requirement

differences = {}
checked = 0
for line in sys.stdin.read().replace("\\\n", " ").splitlines():
    text = line.split("#")[0].split("--hash")[0].strip()
    if not text:
        continue
    requirement = Requirement(text)
    if requirement.marker and not requirement.marker.evaluate():
        continue
    checked += 1
    try:
        found = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        found = "not installed"
    # `+cpu` and the like say where a build comes from, not what it is.
    if found.split("+")[0] != str(requirement.specifier).removeprefix("=="):
        differences[text] = found
print(json.dumps({"checked": checked, "differences": differences}))
