"""A grid of notebooks run as a batch: one file in, one folder with one table out; no finished cell runs twice.

grid.yaml -> `read_grid` -> `plan_of` (every cell with its content-addressed name) -> `run_batch` (an engine runs the
cells; a finished one is a folder) -> `results.parquet` and `index.html`.
"""

from workbench.running.batch.grid import Grid, Stage, read_grid
from workbench.running.batch.plan import Cell, Plan, plan_of
from workbench.running.batch.run import BatchConfig, BatchPaths, dry_run, run_batch

__all__ = ["BatchConfig", "BatchPaths", "Cell", "Grid", "Plan", "Stage", "dry_run", "plan_of", "read_grid", "run_batch"]
