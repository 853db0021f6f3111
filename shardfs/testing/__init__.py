"""The test kit: stores that fail on request, a reference model, the exam for engines. Shipped, imported by nothing.

It lets the author of a new engine examine it, and the author of a new feature torment it, without this project's tests.
"""
