#!/usr/bin/python3
"""runc, where root may not do all that it may on a machine of its own: containers get no more than there is."""

import json
import os
import resource
import sys

LIMITS = {"RLIMIT_NOFILE": resource.RLIMIT_NOFILE, "RLIMIT_MEMLOCK": resource.RLIMIT_MEMLOCK}

arguments = sys.argv[1:]
if "create" in arguments:
    path = os.path.join(arguments[arguments.index("--bundle") + 1], "config.json")
    with open(path) as file:
        configuration = json.load(file)
    process = configuration["process"]
    for names in process["capabilities"].values():
        names[:] = [name for name in names if name != "CAP_SYS_RESOURCE"]
    for limit in process.get("rlimits", []):
        hard = resource.getrlimit(LIMITS[limit["type"]])[1]
        if hard != resource.RLIM_INFINITY:
            limit["hard"] = min(limit["hard"], hard)
            limit["soft"] = min(limit["soft"], hard)
    with open(path, "w") as file:
        json.dump(configuration, file)
os.execvp("runc", ["runc", *arguments])
