"""What holds for all tests: how long an example of a property takes to draw or to try is the machine's business, and
every program that a test starts hears Ctrl-C."""

import signal

from hypothesis import HealthCheck, settings

settings.register_profile("shardfs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shardfs")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script
    signal.signal(signal.SIGINT, signal.default_int_handler)
