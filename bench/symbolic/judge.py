"""Decides by itself whether a formula is the law: no symbolic algebra, no reading.

A formula has the law's structure if it agrees with the law, on fresh rows without noise from a range 1.5 times as wide, to
1e-5 of the law's rms (in the rows' median to 1e-6) once its constants are refitted there: what merely approximates the
law on the table does not. It is recovered if it also has R2 > 0.9999 there with its own constants (0.999 where the
table had noise), and is not much longer (three times the nodes of the law, and 12).
"""
import ast
import re

import numpy as np
from scipy.optimize import least_squares

from problems import FUNCTIONS

NUMBER = re.compile(r"(?<![A-Za-z_0-9.])(\d+\.?\d*(?:[eE][-+]?\d+)?)")



ENVIRONMENT = FUNCTIONS | {
    "IF": lambda c, a, b: np.where(c > 0, a, b), "min": np.minimum, "max": np.maximum,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "cube": lambda x: x**3, "neg": lambda x: -x, "number": lambda c: c * 1.0,
}


class Formula:
    """Infix text (`^` or `**`) as a function of rows and constants."""

    def __init__(self, text, names):
        text = text.replace("^", "**")
        self.start = []

        def constant(match):
            self.start.append(float(match.group(1)))
            return f"_k[{len(self.start) - 1}]"
        text = NUMBER.sub(constant, text)
        tree = ast.parse(text, mode="eval")
        self.size = sum(isinstance(n, (ast.BinOp, ast.Call, ast.Name, ast.Subscript, ast.Compare)) for n in ast.walk(tree))
        self.code, self.names = compile(tree, "<formula>", "eval"), names

    def __call__(self, x, constants=None):
        values = dict(zip(self.names, x.T)) | {"_k": self.start if constants is None else constants}
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(eval(self.code, ENVIRONMENT, values), float), len(x))


def judge(problem, text, noise):
    """R2 on the wider range, the error there after refitting, and the verdict."""
    x = problem.fresh()
    y = problem.target(x)
    rms = np.sqrt(np.mean(y * y))
    formula = Formula(text, problem.names)
    p = formula(x)
    finite = np.isfinite(p).all()
    r2 = 1 - np.sum((p - y) ** 2) / np.sum((y - y.mean()) ** 2) if finite else -np.inf
    law = Formula(problem.formula.replace("pi", "3.141592653589793"), problem.names)
    passed = r2 > (0.999 if noise else 0.9999) and formula.size <= 3 * law.size + 12
    error = np.inf
    # What has failed already need not be refitted.
    if passed:
        start = np.array(formula.start)
        weight = 1 / (np.abs(y) + 1e-3 * np.median(np.abs(y)) + 1e-12)

        def residual(c):
            r = np.nan_to_num((formula(x, c) - y) * weight, nan=1e6, posinf=1e6, neginf=-1e6)
            return np.clip(r, -1e6, 1e6)
        best = start
        if len(start):
            for scale in ("jac", 1.0):
                fit = least_squares(residual, best, x_scale=scale, ftol=1e-15, xtol=1e-15, gtol=1e-15, max_nfev=200)
                best = fit.x if np.sum(fit.fun**2) <= np.sum(residual(best) ** 2) else best
        r = np.abs(formula(x, best) - y)
        error = float(max(np.sqrt(np.mean(r * r)) / rms / 10, np.median(r) / rms)) if np.isfinite(r).all() else np.inf
    recovered = bool(passed and error < 1e-6)
    return {"r2": float(r2), "error": error, "size": formula.size, "recovered": recovered}
