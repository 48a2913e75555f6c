"""Runs programs on benchmark problems, judges what they find, and keeps a line for each in a file.

    python run.py laws nguyen --engines lawsmith pyoperon --seconds 30 --noise 0 0.001 --seeds 0 1 -o results.jsonl

Go on after an interruption with the same command: what is in the file is not run again. `--table` only prints the table.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from judge import judge
from problems import suites

HERE = Path(__file__).resolve().parent
BINARY = HERE.parent.parent / "target/release/lawsmith"


def lawsmith(problem, x, y, args, seed):
    """The front, and the entry that the program itself chooses."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        rows = np.column_stack([x, y])
        np.savetxt(table, rows, "%.9g", delimiter=",", header=",".join(problem.names + ["target"]), comments="")
        command = [args.binary, "regress", table, "--target", "target", "--operators", ",".join(problem.operators)]
        command += ["--loss", args.loss or ("mae" if "IF" in problem.operators else "mse")]
        command += ["--threads", args.threads, "--seed", seed, "-o", Path(folder) / "run", "--json", "-q"]
        command += ["--evaluations", args.evaluations] if args.evaluations else ["--seconds", args.seconds]
        done = subprocess.run([str(c) for c in command + args.options.split()], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr)
        found = json.loads(done.stdout)
    front = [(e["complexity"], e["loss"], e["equation"]) for e in found["front"]]
    return {"front": front, "chosen": found["selected"]["shortest"], "evaluations": found["evaluations"]}


def pyoperon(problem, x, y, args, seed):
    """Its front, and its own choice (minimum description length)."""
    import pyoperon.sklearn
    names = {"+": "add", "-": "sub", "*": "mul", "/": "div", "^": "pow"}
    symbols = [names.get(o, o) for o in problem.operators if o not in (">", "<", "IF")]
    model = pyoperon.sklearn.SymbolicRegressor(
        allowed_symbols=",".join(symbols + ["constant", "variable"]), objectives=["r2", "length"], optimizer="lm",
        optimizer_iterations=5, population_size=1000, pool_size=1000, generations=10**9, max_evaluations=10**12,
        max_length=40, max_depth=10, epsilon=1e-12, n_threads=args.threads, max_time=args.seconds, random_state=seed,
        uncertainty=[max(float(np.std(y)) * max(args.level, 1e-5), 1e-12)])
    model.fit(x, y)
    numbered = [f"X{i + 1}" for i in range(len(problem.names))]

    def text(entry):
        formula = model.get_model_string(entry["tree"], 9)
        for number in reversed(range(len(numbered))):
            formula = formula.replace(numbered[number], f"_v{number}_")
        for number, name in enumerate(problem.names):
            formula = formula.replace(f"_v{number}_", name)
        return formula
    front = sorted(((e["length"], float(e["mean_squared_error"]), text(e)) for e in model.pareto_front_), key=lambda e: e[0])
    own = text({"tree": model.model_})
    chosen = next((i for i, e in enumerate(front) if e[2] == own), None)
    if chosen is None:
        front.append((len(own), float("nan"), own))
        chosen = len(front) - 1
    return {"front": front, "chosen": chosen}


def gplearn(problem, x, y, args, seed):
    """Its best program; as many generations as fit."""
    from gplearn.functions import make_function
    from gplearn.genetic import SymbolicRegressor
    square = make_function(function=lambda a: np.clip(a, -1e6, 1e6) ** 2, name="square", arity=1)
    exp = make_function(function=lambda a: np.exp(np.clip(a, -50, 50)), name="exp", arity=1)
    known = {"+": "add", "-": "sub", "*": "mul", "/": "div", "square": square, "exp": exp, "log": "log", "sqrt": "sqrt",
             "sin": "sin", "cos": "cos"}
    model = SymbolicRegressor(
        population_size=1000, generations=1, function_set=[known[o] for o in problem.operators if o in known],
        parsimony_coefficient=1e-3, metric="mse", warm_start=True, n_jobs=args.threads, random_state=seed)
    begun, generations = time.time(), 0
    while time.time() - begun < args.seconds:
        generations += 1
        model.set_params(generations=generations)
        model.fit(x, y)
    infix = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
    program = model._program.program

    def text(at):
        node = program[at]
        if isinstance(node, (int, np.integer)):
            return problem.names[node], at + 1
        if not hasattr(node, "arity"):
            return f"({node:.9g})", at + 1
        parts, at = [], at + 1
        for _ in range(node.arity):
            part, at = text(at)
            parts.append(part)
        if node.name in infix:
            return f"({parts[0]} {infix[node.name]} {parts[1]})", at
        inner = f"abs({parts[0]})" if node.name in ("log", "sqrt") else parts[0]
        return f"{node.name}({inner})", at
    return {"front": [(len(program), float(model._program.raw_fitness_), text(0)[0])], "chosen": 0}


ENGINES = {"lawsmith": lawsmith, "pyoperon": pyoperon, "gplearn": gplearn}


def run(engine, problem, noise, seed, args):
    """One line of the file."""
    x, y = problem.table(seed, noise)
    args.level = noise
    used = lambda: sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    wall, cpu = time.time(), used()
    try:
        found = ENGINES[engine](problem, x, y, args, seed)
    except Exception as error:
        return {"failure": f"{type(error).__name__}: {error}"[-300:], "recovered": False}
    line = {"wall": round(time.time() - wall, 2), "cpu": round(used() - cpu, 2)}
    if "evaluations" in found:
        line["evaluations"] = found["evaluations"]
    front, chosen = found["front"], found["chosen"]
    line |= {"equation": front[chosen][2], "loss": front[chosen][1]} | judge(problem, front[chosen][2], noise)
    line["r2_passed"] = line["r2"] > 0.9999
    line["in_front"] = line["recovered"] or any(judge(problem, e[2], noise)["recovered"] for e in front)
    return line


def table(lines):
    """Recovered / runs, for each suite, noise and program; then what was missed."""
    groups = {}
    for line in lines:
        groups.setdefault((line["suite"], line["noise"], line["seconds"], line["engine"]), []).append(line)
    text = ["| suite | noise | seconds | program | runs | recovered | in its front | R2 > 0.9999 | median cpu s |", "|" + " --- |" * 9]
    for (suite, noise, seconds, engine), group in sorted(groups.items(), key=str):
        count = lambda key: sum(bool(line.get(key)) for line in group)
        cpu = np.median([line.get("cpu", np.nan) for line in group])
        whole = len(suites()[suite]) * len({line["seed"] for line in group})
        part = "" if len(group) == whole else f" of {whole}"
        text.append(f"| {suite} | {noise:g} | {seconds:g} | {engine} | {len(group)}{part} | {count('recovered')} "
                    f"({100 * count('recovered') / len(group):.0f} %) | {count('in_front')} | {count('r2_passed')} | {cpu:.1f} |")
    for key, group in sorted(groups.items(), key=str):
        missed = sorted({f"{line['problem']}" for line in group if not line["recovered"]})
        text.append(f"\nmissed, {' '.join(str(k) for k in key)}: {', '.join(missed) or 'none'}")
    return "\n".join(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", choices=[[], *suites()])
    parser.add_argument("--engines", nargs="+", default=["lawsmith"], choices=ENGINES)
    parser.add_argument("--noise", nargs="+", type=float, default=[0.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--seconds", type=int, default=30, help="for one problem")
    parser.add_argument("--evaluations", type=int, help="lawsmith: this limit instead of seconds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--loss", help="lawsmith: instead of mae for laws and mse for all others")
    parser.add_argument("--options", default="", help="lawsmith: further options")
    parser.add_argument("--only", nargs="*", help="problems by name")
    parser.add_argument("--binary", default=str(BINARY))
    parser.add_argument("-o", "--output", default="results.jsonl")
    parser.add_argument("--table", action="store_true", help="print the table of the file and stop")
    args = parser.parse_args()
    path = Path(args.output)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {tuple(line[k] for k in ("suite", "problem", "noise", "seed", "engine", "seconds")) for line in lines}
    todo = [] if args.table else [
        (suite, problem, noise, seed, engine) for suite in args.suites for noise in args.noise for seed in args.seeds
        for problem in suites()[suite] if not args.only or problem.name in args.only for engine in args.engines]
    for suite, problem, noise, seed, engine in todo:
        key = (suite, problem.name, noise, seed, engine, args.seconds)
        if key in done:
            continue
        line = dict(zip(("suite", "problem", "noise", "seed", "engine", "seconds"), key))
        line |= {"threads": args.threads, "load": round(os.getloadavg()[0], 1)} | run(engine, problem, noise, seed, args)
        lines.append(line)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(f"{'yes' if line['recovered'] else 'no ':3} {'front' if line.get('in_front') else '     '} {problem.name} {noise:g} {seed} {engine} "
              f"{line.get('wall')} s, r2 {line.get('r2')}, {line.get('equation', line.get('failure'))}", file=sys.stderr, flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
