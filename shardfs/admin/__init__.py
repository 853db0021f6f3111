"""Looks after what the cluster holds: publishing, and later scrub, repair, rebalance and gc."""
