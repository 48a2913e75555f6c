#!/usr/bin/env python3
"""Writes tests/data/dop853.json: trajectories of all six laws by SciPy's DOP853, as a witness.

Needs numpy and scipy. The laws are written here a second time, straight from the table of
potentials, and differentiated by hand; nothing is shared with the Rust program.

    python3 scripts/scipy_witness.py
"""

import json
from pathlib import Path

import numpy as np
from scipy.integrate import solve_ivp

SOFTENING = 0.01
TOLERANCE = 1e-12
# Chosen by seed, and kept only if no two bodies come within this distance: after a close
# encounter, or a jump of the discontinuous law, two correct integrators drift apart.
CLOSEST = 0.15

# dU/dr' of each law.
SLOPES = {
    "inverse-square": lambda r, m1, m2, q1, q2: m1 * m2 / r**2,
    "inverse": lambda r, m1, m2, q1, q2: m1 * m2 / r,
    "spring": lambda r, m1, m2, q1, q2: 2 * (r - 1),
    "damped": lambda r, m1, m2, q1, q2: 2 * (r - 1),
    "charge": lambda r, m1, m2, q1, q2: -q1 * q2 / r**2,
    "discontinuous": lambda r, m1, m2, q1, q2: 2 * (r - 1) if r >= 2 else 0.0,
}


def accelerations(law, r, v, m, q):
    n = len(m)
    a = np.zeros_like(r)
    for i in range(n):
        for j in range(n):
            if i != j:
                d = r[i] - r[j]
                distance = np.sqrt(d @ d)
                slope = SLOPES[law](distance + SOFTENING, m[i], m[j], q[i], q[j])
                a[i] -= slope * d / distance
                if law == "damped":
                    a[i] -= v[i] / n
    return a / m[:, None]


def trajectory(law, times, r, v, m, q, max_step):
    def derivative(_, y):
        r, v = y.reshape(2, *shape)
        return np.concatenate([v.ravel(), accelerations(law, r, v, m, q).ravel()])

    shape = r.shape
    start = np.concatenate([r.ravel(), v.ravel()])
    options = dict(method="DOP853", rtol=TOLERANCE, atol=TOLERANCE, max_step=max_step)
    solution = solve_ivp(derivative, (0, times[-1]), start, t_eval=times, **options)
    assert solution.success, solution.message
    return solution.y.T.reshape(len(times), 2, *shape)


def closest(states):
    r = states[:, 0]
    d = np.linalg.norm(r[:, :, None] - r[:, None], axis=-1)
    return d[:, ~np.eye(r.shape[1], dtype=bool)].min()


def main():
    cases = []
    for law in SLOPES:
        for dim, bodies in [(2, 4), (3, 3)]:
            dt, frames = 0.02, 26
            times = np.arange(frames) * dt
            # Steps of at most this size see every jump of the discontinuous law.
            max_step = 1e-4 if law == "discontinuous" else np.inf
            for seed in range(1000):
                random = np.random.default_rng(seed)
                r, v = random.normal(size=(2, bodies, dim))
                m = np.exp(random.normal(size=bodies))
                q = random.choice([-1.0, 1.0], size=bodies)
                fine = trajectory(law, np.linspace(0, times[-1], 501), r, v, m, q, np.inf)
                if closest(fine) > CLOSEST:
                    break
            states = trajectory(law, times, r, v, m, q, max_step)
            cases.append({
                "law": law, "dim": dim, "bodies": bodies, "dt": dt, "frames": frames,
                "masses": m.tolist(), "charges": q.tolist(),
                # [frame, 2, body, dim] for the first, a middle and the last frame
                "at": [0, 13, 25],
                "states": [states[k].tolist() for k in (0, 13, 25)],
            })
    path = Path(__file__).resolve().parent.parent / "tests" / "data" / "dop853.json"
    path.write_text(json.dumps(cases, indent=None, separators=(",", ":")) + "\n")
    print(f"{path}: {len(cases)} cases")


if __name__ == "__main__":
    main()
