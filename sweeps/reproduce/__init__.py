"""What is recorded of code, packages, data and weights; reading it back, and judging a reproduction by it.

Imports no torch: hashing and tracing run in `worker`. Start reading at `verdict.py`.
"""
