"""The benchmark of shardfs: every figure beside its limit, measured in the same run. `tools/bench/run --help`."""
