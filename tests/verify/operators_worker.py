"""Records one honest step with all its contents into a file: the provider's machine of `test_operators_check`.

python operators_worker.py FILE KIND
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from steps import ALL, Work

torch.set_num_threads(2)
_, kept = Work(sys.argv[2]).record(ALL)
with Path(sys.argv[1]).open("wb") as file:
    for operator in kept.values():
        data = operator.pack()
        file.write(len(data).to_bytes(8, "little") + data)
print(torch.backends.cpu.get_cpu_capability())
