"""Benchmarks: ratios to peers that are measured in the same run, by interleaved medians."""
