"""Benchmarks: `make bench` measures and writes results.json. Timings are benchmarks, never tests."""
