"""What holds for all tests: how long an example of a property takes to draw or to try is the machine's business."""

from hypothesis import HealthCheck, settings

settings.register_profile("shardfs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shardfs")
