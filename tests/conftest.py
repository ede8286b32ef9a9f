"""Before NumPy is imported: one BLAS thread a process, since the matrices here are small."""

import os

for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
