"""Make rows with SDV's GaussianCopula, in an environment of its own: SDV cannot live beside today's pandas.

    python sdv_rows.py FITTED.parquet KINDS.json ROWS OUT.parquet

Prints how many seconds fitting and sampling took. It needs sdv and pyarrow. SDV (Business Source License) is
compared with and never a dependency. Each column is declared with its kind, so that none is taken for an
identifier and made anonymous.
"""

import json
import sys
import time
import warnings

import pandas as pd
from sdv.metadata import Metadata
from sdv.single_table import GaussianCopulaSynthesizer

SDTYPES = {
    "category": "categorical",
    "boolean": "boolean",
    "integer": "numerical",
    "number": "numerical",
    "timestamp": "datetime",
}

warnings.filterwarnings("ignore")
fitted, kinds, rows, out = sys.argv[1:]
with open(kinds) as file:  # noqa: PTH123
    columns = {name: {"sdtype": SDTYPES[kind]} for name, kind in json.load(file).items()}
synthesizer = GaussianCopulaSynthesizer(Metadata.load_from_dict({"tables": {"table": {"columns": columns}}}))
start = time.perf_counter()
synthesizer.fit({"table": pd.read_parquet(fitted)})
fitted_at = time.perf_counter()
made = synthesizer.sample(int(rows))
print(json.dumps({"fit": fitted_at - start, "sample": time.perf_counter() - fitted_at}))
(made["table"] if isinstance(made, dict) else made).to_parquet(out)
