"""The radius graph of `neighbours` by scipy's k-d tree, on one core of the processor.

    neighbours.py [--device cpu --quick]

As many points at random as there are halos, as in `lawsmith bench neighbours`. The result is a line of JSON.
"""

import argparse
import json
import math
import sys
import time

try:
    import numpy as np
    import scipy
    from scipy.spatial import cKDTree
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit()

HALOS, EDGE, RADIUS = 215_854, 1000.0, 50.0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", help="makes no difference: as other peers")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    nodes = HALOS // 64 if options.quick else HALOS
    points = EDGE * np.random.default_rng(0).random((nodes, 3))
    begun = time.perf_counter()
    pairs = cKDTree(points, boxsize=EDGE).query_pairs(RADIUS, output_type="ndarray")
    seconds = time.perf_counter() - begun
    edges = 2 * len(pairs)
    expected = nodes**2 * 4 / 3 * math.pi * (RADIUS / EDGE) ** 3
    if abs(edges / expected - 1) > 0.02:
        sys.exit(f"wrong: {edges} edges, where points at random have some {expected:.0f}")
    line = {
        "peer": "scipy cKDTree, one core",
        "size": f"{nodes} points, radius 50 in 1000: {edges} edges, each pair once",
        "precision": "f64",
        "seconds": seconds,
        "scipy": scipy.__version__,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
