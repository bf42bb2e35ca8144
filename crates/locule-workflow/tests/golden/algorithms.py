"""Prints what server optimisers and robust rules come to, by numpy, as JSON.

python tests/golden/algorithms.py > tests/golden/algorithms.json
"""

import json

import numpy as np

rng = np.random.default_rng(7)
start = rng.normal(size=5)
changes = rng.normal(size=(4, 5))
golden = {"start": start.tolist(), "changes": changes.tolist(), "optimizers": {}}


def run(name, first, second, step):
    x, m, v = start.copy(), np.zeros(5), np.full(5, second)
    path = []
    for d in changes:
        x, m, v = step(x, m, v, d)
        path.append(x.tolist())
    golden["optimizers"][name] = path


def adaptive(rule, rate=0.1, b1=0.9, tau=1e-3):
    def step(x, m, v, d):
        m = b1 * m + (1 - b1) * d
        v = rule(v, d * d)
        return x + rate * m / (np.sqrt(v) + tau), m, v

    return step


run("momentum", 0, 0.0, lambda x, m, v, d: (x + 0.5 * (0.9 * m + d), 0.9 * m + d, v))
run("adam", 0, 1e-6, adaptive(lambda v, s: 0.99 * v + 0.01 * s))
run("yogi", 0, 1e-6, adaptive(lambda v, s: v - 0.01 * s * np.sign(v - s)))
run("adagrad", 0, 1e-6, adaptive(lambda v, s: v + s, b1=0.0))

updates = rng.normal(size=(7, 6))
updates[2] += 50
updates[5] -= 80
golden["updates"] = updates.tolist()
ordered = np.sort(updates, axis=0)
distances = ((updates[:, None] - updates[None]) ** 2).sum(-1)


def scores(f):
    n = len(updates)
    return [np.sort(np.delete(distances[i], i))[: n - f - 2].sum() for i in range(n)]


order = np.argsort(scores(2), kind="stable")
golden["rules"] = {
    "median": np.median(updates, axis=0).tolist(),
    "median of six": np.median(updates[:6], axis=0).tolist(),
    "trimmed": ordered[2:-2].mean(axis=0).tolist(),
    "krum": updates[order[0]].tolist(),
    "multi krum": updates[np.sort(order[:3])].mean(axis=0).tolist(),
}
# SCAFFOLD: three sites of two steps each, with quadratic losses (x - target)^2 / 2 and the rate 0.2.
targets, weights, x, c = np.array([1.0, 4.0, -2.0]), np.array([5.0, 2.0, 3.0]), 0.5, 0.0
own, path = np.zeros(3), []
for _ in range(4):
    models, changes_of_c = np.zeros(3), np.zeros(3)
    for i, target in enumerate(targets):
        y = x
        for _ in range(2):
            y -= 0.2 * ((y - target) - own[i] + c)
        new = own[i] - c + (x - y) / (2 * 0.2)
        models[i], changes_of_c[i], own[i] = y, new - own[i], new
    x = (weights * models).sum() / weights.sum()
    c += (weights * changes_of_c).sum() / weights.sum()
    path.append([x, c])
golden["scaffold"] = path
print(json.dumps(golden, indent=1))
