"""What programs may call: the same questions and actions as the commands, as async functions that return records.

`catalogue`: models, info, versions, remove. `plan`: who serves what. `nodes`: status. `local`: a cluster on this
machine, for trying out, tests and benchmarks. Nothing is imported here, so that each costs only what it needs.
"""
