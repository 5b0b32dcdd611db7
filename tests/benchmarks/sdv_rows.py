"""Make rows with SDV's GaussianCopula, in an environment of its own: SDV cannot live beside today's pandas.

Run by `fidelity.py --sdv PYTHON`: python sdv_rows.py FITTED.parquet KINDS.json ROWS OUT.parquet. It needs sdv
and pyarrow. SDV (Business Source License) is compared with, never depended on. Each column is declared as
what it is, so that none is taken for an identifier and made anonymous.
"""

import json
import sys
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
synthesizer.fit({"table": pd.read_parquet(fitted)})
made = synthesizer.sample(int(rows))
(made["table"] if isinstance(made, dict) else made).to_parquet(out)
