"""What the engine does on a GPU: `python -m benchmarks.cuda`, in one command and without downloads.

Models of the real shapes with random weights cost what real ones cost.
"""
