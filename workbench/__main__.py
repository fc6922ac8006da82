"""The command line: a skin over the functions of the rooms. Nothing heavy is imported before it is needed.

Exit codes, the same in every command: 0 done; 2 refused, because of the input or what this machine lacks; 4 something
crashed after the work had begun; 130 stopped with Ctrl-C. 1 and 3 are not used.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from workbench.core.errors import ParameterError, WorkbenchError, nearest
from workbench.running.shipped import VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        asked, unknown = _parser(words).parse_known_args(words)
        if unknown:
            raise ParameterError(_unknown(asked, unknown))
        code: int = asked.do(asked)
    except WorkbenchError as error:
        if debug:
            raise
        _complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        if debug:
            raise
        print("workbench: stopped; the next run resumes from what was computed", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except Exception:
        traceback.print_exc()
        print("workbench: this is a fault of the workbench, not of your input; please report it", file=sys.stderr)
        return 4
    return code


def _unknown(asked: argparse.Namespace, words: Sequence[str]) -> str:
    names = set(vars(asked)) - {"do", "debug", "models", "verb"}
    known = sorted(f"--{name.lstrip('-').replace('_', '-')}" for name in names)
    return f"there is no {words[0]!r} here: {nearest(words[0], known)} (see --help)"


def _complain(error: WorkbenchError) -> None:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    print(f"workbench: {said}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; a verb's own options are read from its notebook only where `words` ask for that verb."""
    parser = _Parser(prog="workbench", description="Compare a base model with its aligned version, token by token.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    for verb, (help_text, _) in _VERB_TEXTS.items():
        own = verbs.add_parser(verb, help=help_text, allow_abbrev=False)
        if verb in words[:2]:
            _add_verb_options(own, verb)

    notebooks = verbs.add_parser(
        "notebooks",
        help="copy the notebooks and lessons into a folder",
        description="Copy the four notebooks and the lessons into a folder, to read, change and run in Jupyter.",
    )
    notebooks.add_argument("folder", metavar="DIR", help="where to; nothing there is overwritten with other content")
    notebooks.add_argument("--solutions", action="store_true", help="also copy the lessons with their answers")
    notebooks.set_defaults(do=_notebooks)

    pairs = verbs.add_parser("pairs", help="list the model pairs known by name, or fetch one")
    pairs.add_argument("--json", action="store_true", help="print the list as JSON")
    pairs.set_defaults(do=_list_pairs)
    actions = pairs.add_subparsers(metavar="ACTION")
    fetch = actions.add_parser("fetch", help="put a pair into this machine's cache")
    fetch.add_argument("name", help="a name from `workbench pairs`")
    fetch.set_defaults(do=_fetch_pair)

    run = verbs.add_parser(
        "run",
        help="run a notebook into a folder",
        description="Run a notebook without a screen. The folder holds run.json, results.json, the executed notebook, "
        "its HTML, and what the notebook writes; it appears when the run is complete.",
    )
    run.add_argument("notebook", help="path of the notebook, or the name of a shipped one such as 01_diagnosis")
    run.add_argument("--out", required=True, metavar="DIR", help="the run's folder; an earlier run there is replaced")
    run.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="set a parameter of the notebook; lists as 0,5,10; may be repeated",
    )
    run.add_argument("--smoke", action="store_true", help="small settings, out of the notebook's own metadata")
    run.add_argument("--cell-seconds", type=int, metavar="N", help="stop when one cell takes longer")
    run.set_defaults(do=_run)

    batch = verbs.add_parser(
        "batch",
        help="run a grid of notebooks into one folder",
        description="Run every cell of a grid file: several notebooks with fixed and varied parameters, some needing "
        "others. Finished cells are skipped, failed ones kept; a batch that was stopped resumes where it stopped. The "
        "folder holds cells/, logs/, results.parquet (all rows) and index.html (the comparison).",
    )
    batch.add_argument("grid", help="path of the grid file (YAML)")
    batch.add_argument("--out", metavar="DIR", help="the batch's folder (default: what the file says, or runs/NAME)")
    batch.add_argument("--workers", type=int, metavar="N", help="cells at once (default: one a GPU, or one a core)")
    batch.add_argument("--threads", type=int, metavar="N", help="threads of each worker (default: cores / workers)")
    batch.add_argument("--warm", action="store_true", help="keep workers and their loaded pairs from cell to cell")
    batch.add_argument("--retry", action="store_true", help="run cells again that failed before")
    batch.add_argument("--dry-run", action="store_true", help="print the plan, expected time and memory; start nothing")
    batch.add_argument("--executor", choices=("local", "ray"), default="local", help="where cells run (default: local)")
    batch.add_argument(
        "--address", metavar="ADDRESS", help="of the Ray cluster, or auto (default: start one on this machine)"
    )
    batch.set_defaults(do=_batch)

    compare = verbs.add_parser(
        "compare",
        help="show what changed between two runs",
        description="Print which settings, versions and numbers differ between two run folders, each number with its "
        "interval; --out writes the same as a page, with the texts that differ through the lens.",
    )
    compare.add_argument("first", metavar="RUN", help="folder of a run")
    compare.add_argument("second", metavar="RUN", help="folder of the run that it is compared with")
    compare.add_argument("--out", metavar="FILE", help="also write an HTML page")
    compare.add_argument("--lines", type=int, default=25, metavar="N", help="numbers to print at most (default: 25)")
    compare.add_argument(
        "--harmful-text",
        choices=("auto", "show", "blur", "redact"),
        default="auto",
        help="on the page; auto shows the made-up world and withholds the rest (default)",
    )
    compare.set_defaults(do=_compare)

    cache = verbs.add_parser("cache", help="list what is stored on this machine, or clear it")
    cache.add_argument("--all", dest="every", action="store_true", help="one line for every single thing")
    cache.set_defaults(do=_list_cache)
    ways = cache.add_subparsers(metavar="ACTION")
    clearing = ways.add_parser(
        "clear",
        help="remove stored things by kind, name or age",
        description="Remove what matches every option given, after asking. What has changed within ten minutes, is "
        "open in a process, or is a training that is not finished and younger than a day, stays.",
    )
    clearing.add_argument("--kind", dest="kinds", action="append", default=[], help="such as store; may be repeated")
    clearing.add_argument(
        "--name", dest="names", action="append", default=[], metavar="PATTERN", help="such as 'recovery-*'; likewise"
    )
    clearing.add_argument("--older-than", metavar="AGE", help="unchanged for that long: 30m, 12h, 7d, 2w")
    clearing.add_argument("--everything", action="store_true", help="where nothing narrower is asked for")
    clearing.add_argument("--yes", action="store_true", help="do not ask")
    clearing.set_defaults(do=_clear_cache)

    judge = verbs.add_parser("judge", help="judge texts: measure a judge against people's labels")
    tasks = judge.add_subparsers(metavar="ACTION", required=True)
    calibrate = tasks.add_parser(
        "calibrate",
        help="compare a judge with the labels of a file; prints one JSON object",
        description="Judge every row of a labelled file and print precision, recall, F1 and kappa as one JSON object. "
        "The file (CSV, TSV, JSON, JSONL) has the columns prompt, completion and final_label: full_compliance, "
        "full_refusal or partial_refusal, or harmful or harmless, with or without a number before them.",
    )
    calibrate.add_argument("file", help="path of the labelled file")
    calibrate.add_argument("--judge", required=True, metavar="NAME", help="refusal, or KIND:MODEL such as guard:FOLDER")
    calibrate.add_argument("--threshold", type=float, default=0.5, metavar="P", help="p_harmful that counts as harmful")
    calibrate.add_argument("--base-url", metavar="URL", help="where the server of judge endpoint:MODEL is, up to /v1")
    calibrate.add_argument(
        "--key-variable", metavar="NAME", help="the environment variable that holds the server's key"
    )
    calibrate.set_defaults(do=_calibrate)

    merge = verbs.add_parser(
        "merge",
        help="write a model with an adapter merged into it",
        description="Merge an adapter into the aligned model of a pair, in the place of its own, and write the model "
        "and its tokenizer as a folder that loads with transformers alone.",
    )
    merge.add_argument("adapter", help="folder or hub id of the adapter, as notebook 03 leaves it")
    merge.add_argument("--out", required=True, metavar="DIR", help="the model's folder; must not exist yet")
    merge.add_argument("--pair", metavar="NAME", help="a name from `workbench pairs`")
    merge.add_argument("--base", metavar="MODEL", help="base model, where no pair is named: hub id, folder, GGUF file")
    merge.add_argument(
        "--aligned", metavar="MODEL", help="aligned model, likewise; left out where it is base + adapter"
    )
    merge.set_defaults(do=_merge)
    for one in (pairs, fetch, run, notebooks, batch, compare, cache, clearing, judge, calibrate, merge):
        one.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from workbench import __version__

        print(f"workbench {__version__}")
        parser.exit()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ----------------------------------------------------------------------------------- the verbs that run a notebook

_VERB_TEXTS = {
    "diagnose": (
        "show how deep the alignment of a pair goes",
        "Trace base and aligned along the same responses and report, token by token, where they still agree.",
    ),
    "tune": (
        "find the decoding penalty that buys most safety for least harm",
        "Try decoding penalties against the prefill attack, recommend one, and check it on other prompts.",
    ),
    "complete": (
        "complete the alignment of a pair with a LoRA adapter",
        "Train an adapter that completes the alignment, and compare it with the other ways to do so.",
    ),
    "evaluate": (
        "compare arms under attacks, with judges and capability",
        "Let several arms answer the same prompts under the same attacks, judge the answers, and compare the arms.",
    ),
}
_POSITIONAL = ("pair", "base", "aligned", "out")


def _add_verb_options(parser: argparse.ArgumentParser, verb: str) -> None:
    from workbench.running.parameters import declared_parameters
    from workbench.running.shipped import notebook_named

    notebook = notebook_named(VERBS[verb])
    declared = declared_parameters(notebook)
    parser.description = f"{_VERB_TEXTS[verb][1]} Runs the notebook {notebook.name}; its parameters are the options."
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="BASE ALIGNED: hub ids, folders or GGUF files; or one name from `workbench pairs` (default: embedded)",
    )
    parser.add_argument("--out", metavar="DIR", default=declared["out"].default.strip("'\""), help="the run's folder")
    parser.add_argument("--smoke", action="store_true", help="small settings, from the notebook's own metadata")
    parser.add_argument("--cell-seconds", type=int, metavar="N", help="stop when one cell takes longer")
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    options = parser.add_argument_group("parameters of the notebook (a list as 0,5,10)")
    for name, one in declared.items():
        if name not in _POSITIONAL:
            said = f"{one.help} [{one.type}; default: {one.default}]".replace("%", "%%")
            options.add_argument(f"--{name.replace('_', '-')}", dest=f"-{name}", metavar=_metavar(one.type), help=said)
    parser.set_defaults(do=_verb, verb=verb)


def _metavar(declared: str) -> str:
    inner = declared.removeprefix("Optional[").removesuffix("]")
    return {"str": "TEXT", "int": "N", "float": "X", "bool": "true|false"}.get(inner, "LIST")


def _verb(asked: argparse.Namespace) -> int:
    from workbench.models.presets import preset

    if len(asked.models) > 2:
        raise ParameterError(f"{asked.verb} takes BASE ALIGNED or one pair's name, not {len(asked.models)} models")
    if len(asked.models) == 1:
        preset(asked.models[0])  # an unknown name is refused here, with the nearest
    models = dict(zip(("pair",) if len(asked.models) < 2 else ("base", "aligned"), asked.models, strict=False))
    given = {name[1:]: value for name, value in vars(asked).items() if name.startswith("-") and value is not None}
    asked.notebook, asked.parameters = VERBS[asked.verb], [*models.items(), *given.items()]
    return _run(asked)


def _notebooks(asked: argparse.Namespace) -> int:
    from workbench.running.shipped import copy_notebooks

    print(*copy_notebooks(asked.folder, solutions=asked.solutions), sep="\n")
    return 0


# -------------------------------------------------------------------------------------------------- the commands


def _list_pairs(asked: argparse.Namespace) -> int:
    from workbench.core.legible import aligned
    from workbench.models.presets import PRESETS, Preset

    if asked.json:
        print(json.dumps([row.row() for row in PRESETS], indent=1))
        return 0

    def cells(row: Preset) -> tuple[str, ...]:
        models = 2 if row.aligned else 1
        each = "?" if row.parameters is None else _short(row.parameters)
        size = "" if row.parameters is None else f"{_short(2 * models * row.parameters)}B"
        return (
            row.name,
            f"{models} x {each}" + (" + adapter" if row.adapter else ""),
            size,
            row.licence,
            "gated" if row.gated else "open",
            "here" if row.present else row.how,
        )

    table = [("name", "parameters", "16-bit", "licence", "access", "present"), *map(cells, PRESETS)]
    print(aligned(table))
    return 0


def _short(number: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.1f}{name}" if number < 10 * unit else f"{number / unit:.0f}{name}"
    return str(number)


def _fetch_pair(asked: argparse.Namespace) -> int:
    from workbench.models.presets import preset

    row = preset(asked.name)
    if row.kind == "fetched":
        from workbench.models.smollm2 import fetch_smollm2

        print(fetch_smollm2(progress=_say))
    elif row.present:
        print(f"{row.name} is here already")
    else:
        raise ParameterError(f"{row.name} is not fetched by this command: {row.how}")
    return 0


def _run(asked: argparse.Namespace) -> int:
    from workbench.running.runs import RunConfig, run_notebook

    config = RunConfig(
        notebook=asked.notebook,
        out=asked.out,
        parameters=dict(asked.parameters),
        smoke=asked.smoke,
        cell_seconds=asked.cell_seconds,
    )
    made = run_notebook(config, say=_say)
    for what, path in (
        ("report", made.report),
        ("notebook", made.notebook),
        ("notebook as a page", made.html),
        ("results", made.results),
    ):
        if path is not None:
            print(f"{what + ':':<20}{path}")
    return 0


def _batch(asked: argparse.Namespace) -> int:
    from workbench.running.batch import BatchConfig, dry_run, run_batch

    config = BatchConfig(
        grid=asked.grid,
        out=asked.out,
        workers=asked.workers,
        threads=asked.threads,
        executor=asked.executor,
        address=asked.address,
        warm=asked.warm,
        retry=asked.retry,
    )
    if asked.dry_run:
        print(dry_run(config))
        return 0
    made = run_batch(config)
    print(f"{'cells:':<20}{made.done} done ({made.skipped} before), {made.failed} failed, {made.blocked} blocked")
    print(f"{'comparison:':<20}{made.page}\n{'results:':<20}{made.results}")
    if made.failed:
        print("run again with --retry to try the failed cells once more", file=sys.stderr)
    return 4 if made.failed or made.blocked else 0


def _compare(asked: argparse.Namespace) -> int:
    from workbench.running.changes.differences import compare_runs
    from workbench.running.changes.page import terminal_text, write_comparison

    compared = compare_runs(asked.first, asked.second)
    print(terminal_text(compared, lines=asked.lines))
    if asked.out is not None:
        print(f"\npage    {write_comparison(compared, asked.out, harmful_text=asked.harmful_text)}")
    return 0


def _list_cache(asked: argparse.Namespace) -> int:
    from workbench.running.cache import cached, listing

    print(listing(cached(), every=asked.every))
    return 0


def _clear_cache(asked: argparse.Namespace) -> int:
    from workbench.running.cache import cached, chosen, clear, listing, said_size

    if not (asked.kinds or asked.names or asked.older_than or asked.everything):
        raise ParameterError("clear what? Give --kind, --name or --older-than (see `workbench cache`), or --everything")
    items = chosen(cached(), kinds=asked.kinds, names=asked.names, older_than=asked.older_than)
    if not items:
        print("nothing in the cache matches")
        return 0
    print(listing(items, every=asked.every))
    if not asked.yes:
        if not sys.stdin.isatty():
            raise ParameterError(f"nothing was removed: say --yes to remove {len(items)} things without being asked")
        if input(f"Remove these {len(items)}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    freed, left = clear(items)
    print("\n".join([*left, f"removed {len(items) - len(left)} of {len(items)}: {said_size(freed)} free"]))
    return 0


def _merge(asked: argparse.Namespace) -> int:
    from workbench.models.pair import PairConfig, load_pair
    from workbench.training.adapter import merge

    alone = asked.aligned is None and asked.pair is None
    config = PairConfig(
        preset=asked.pair, base=asked.base, aligned=asked.aligned, adapter=asked.adapter if alone else None
    )
    print(merge(load_pair(config), asked.adapter, asked.out))
    return 0


def _calibrate(asked: argparse.Namespace) -> int:
    from workbench.core.store import Store
    from workbench.judging.calibration import calibrate
    from workbench.judging.config import EndpointConfig, JudgeConfig

    kept = Store.default() if ":" in asked.judge else None  # rules are quicker than reading what they said
    server = EndpointConfig(base_url=asked.base_url, key_variable=asked.key_variable) if asked.base_url else None
    how = JudgeConfig.named(asked.judge, server)
    made = calibrate(asked.file, how, threshold=asked.threshold, store=kept, what="judging" if kept else None)
    print(json.dumps(made.to_json(), ensure_ascii=False, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
