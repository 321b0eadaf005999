"""Speed measurements: correctness first, then timing, contestants interleaved."""
