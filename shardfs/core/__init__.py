"""Pure values and decisions: no IO, no clock, no randomness, no scheduler.

Everything here takes values (time and chance included) and returns values, so that each rule can be
tested by a table. What reaches disk or wire is defined here: names, digests, chunk, manifest, ref.
"""
