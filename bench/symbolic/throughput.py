"""Node evaluations per second of pyoperon and lawsmith, side by side on the same random trees and rows.

pyoperon makes the trees (its own creator, random weights on leaves) and evaluates them into an array; lawsmith reads them as
formulas and scores them (mean absolute error, nothing written). A node counts as pyoperon counts it: a weighted leaf w * x is
one, although lawsmith executes a multiplication for it. Every tree is evaluated on every row by both: no early exit, no sharing
of sub-trees, no tree left out. The programs take turns; the fastest call of each counts.

    python throughput.py --threads 2 --rounds 3
"""
import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyoperon as op

from run import BINARY

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rows", type=int, default=5000)
parser.add_argument("--trees", type=int, default=20000)
parser.add_argument("--lengths", type=int, nargs=2, default=[5, 50])
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--binary", default=str(BINARY))
args = parser.parse_args()

rng = np.random.default_rng(args.seed)
names = [f"X{i + 1}" for i in range(7)]
x = np.exp(rng.normal(size=(args.rows, 7))).astype(np.float32)
y = rng.normal(size=args.rows).astype(np.float32)
data = np.asfortranarray(np.column_stack([x, y]))          # a view is kept: the array must live
dataset = op.Dataset(data)
target = max(dataset.Variables, key=lambda v: v.Index)
inputs = sorted((v for v in dataset.Variables if v.Hash != target.Hash), key=lambda v: v.Index)
problem = op.Problem(dataset)
problem.Target, problem.InputHashes = target, [v.Hash for v in inputs]
rows = op.Range(0, args.rows)
problem.TrainingRange = rows
N = op.NodeType
sets = {"+ - * /": N.Add | N.Sub | N.Mul | N.Div, "+ - * / exp log pow": N.Add | N.Sub | N.Mul | N.Div | N.Exp | N.Log | N.Pow}
print("| operators | trees | mean nodes | threads | pyoperon | lawsmith | ratio | trees valid on all rows |\n" + "| --- " * 8 + "|")
for label, symbols in sets.items():
    problem.ConfigurePrimitiveSet(symbols | N.Constant | N.Variable)
    primitives = problem.PrimitiveSet                       # must live as well
    create = op.BalancedTreeCreator(primitives, [v.Hash for v in inputs], 0.0)
    generator = op.RandomGenerator(np.uint64(args.seed))
    weights = op.NormalCoefficientInitializer()
    weights.ParameterizeDistribution(0, 1)
    trees = []
    for _ in range(args.trees):
        tree = create(generator, int(rng.integers(args.lengths[0], args.lengths[1] + 1)), 1, 1000)
        weights(generator, tree)
        trees.append(tree)
    nodes = sum(tree.Length for tree in trees)
    own_names = {v.Hash: names[v.Index] for v in inputs}
    values = np.zeros(args.trees * args.rows, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        table, file = Path(folder) / "rows.csv", Path(folder) / "trees.tsv"
        np.savetxt(table, np.column_stack([x, y]), "%.9g", delimiter=",", header=",".join(names + ["y"]), comments="")
        text = lambda tree: op.InfixFormatter.Format(tree, own_names, 9)
        file.write_text("".join(f"{tree.Length}\t{text(tree)}\n" for tree in trees))
        peer, own = [], []
        for _ in range(args.rounds):
            for _ in range(5):
                begun = time.perf_counter()
                op.EvaluateTrees(trees, dataset, rows, values, args.threads)
                peer.append(time.perf_counter() - begun)
            command = [args.binary, "bench", "--trees", file, "--rows", table, "--threads", args.threads, "--json"]
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            own.append(json.loads(done.stdout))
    rates = [nodes * args.rows / min(peer), max(o["rate_max"] for o in own)]
    print(f"| {label} | {args.trees} | {nodes / args.trees:.1f} | {args.threads} | {rates[0]:.2e} | {rates[1]:.2e} | "
          f"{rates[1] / rates[0]:.1f} | {100 * own[0]['valid']:.0f} % |", flush=True)
