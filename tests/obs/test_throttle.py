from shardfs.obs.throttle import Throttle


def test_a_flood_becomes_a_few_lines_and_a_count():
    throttle = Throttle(burst=2, seconds=5.0)

    said = [throttle.admit(now) for now in (0.0, 0.1, 0.2, 0.3, 4.9, 5.0, 5.1)]

    assert said == [(True, 0), (True, 0), (False, 0), (False, 0), (False, 0), (True, 3), (True, 0)]


def test_quiet_times_say_everything():
    throttle = Throttle(burst=1, seconds=5.0)

    assert [throttle.admit(now) for now in (0.0, 6.0, 12.0)] == [(True, 0)] * 3
