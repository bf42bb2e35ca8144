"""Prints the columns of three sites and figures of all of them, by numpy, as JSON.

python tests/golden/statistics.py > tests/golden/statistics.json
"""

import json

import numpy as np

rng = np.random.default_rng(11)
sites = {
    name: {"age": rng.normal(50, 12, size).round(3), "dose": rng.exponential(2.0, size).round(4)}
    for name, size in [("a", 40), ("b", 25), ("c", 70)]
}
golden = {"sites": {name: {k: v.tolist() for k, v in columns.items()} for name, columns in sites.items()}, "all": {}}
for feature in ["age", "dose"]:
    rows = np.concatenate([columns[feature] for columns in sites.values()])
    counts, edges = np.histogram(rows, bins=6)
    inside, _ = np.histogram(rows, bins=4, range=(1.0, 5.0))
    golden["all"][feature] = {
        "count": len(rows),
        "sum": rows.sum(),
        "mean": rows.mean(),
        "var": rows.var(ddof=1),
        "stddev": rows.std(ddof=1),
        "histogram": [[*pair, int(n)] for pair, n in zip(zip(edges[:-1], edges[1:]), counts)],
        "histogram from 1 to 5": inside.tolist(),
        "quantile": np.quantile(rows, [0.1, 0.5, 0.9], method="hazen").tolist(),
    }
print(json.dumps(golden, indent=1))
