"""The small programs that a benchmark starts: each in a process of its own, so that it shares nothing with the rest.

A program says what it is ready for in one JSON line, waits for a line on its standard input, works, and says what came
of it in a last JSON line. Times are of the clock that all processes share (CLOCK_MONOTONIC).
"""
