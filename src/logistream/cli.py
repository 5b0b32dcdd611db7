"""The `logistream` command: thin, one function per subcommand.

A subcommand is a function that adds its parser and names the function that runs it; `_COMMANDS` lists them.
What a subcommand needs is imported when it runs, so that help and error messages come at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import logistream
from logistream.errors import DataWarning, LogistreamError, RequestError, RequestWarning, StreamError
from logistream.server.defaults import CATCH_UP, CATCH_UP_TOTAL, CLIENTS, OTHER_CONNECTIONS
from logistream.urls import is_loopback, websocket_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from logistream.client.subscription import ReadOptions
    from logistream.server.server import StreamServer

    Commands = argparse._SubParsersAction["_Parser"]  # noqa: SLF001 - argparse has no public name for it

__all__ = ["main"]


logger = logging.getLogger("logistream")

_FAILED, _BAD_USAGE, _INTERRUPTED = 1, 2, 130
_RATE = 2.0  # events per second of a new stream

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    arguments : sequence of str or None
        Without the program's name; None takes those of the process.

    Returns
    -------
    int
        0 for success, 1 for failure, 2 for bad usage, 130 if interrupted.
    """
    try:
        try:
            options = _parser().parse_args(arguments)
            with _warnings_as_notes():
                return int(options.run(options))
        finally:
            if sys.stdout is not None:  # it is if it was closed when the process started
                sys.stdout.flush()  # a closed pipe would be a traceback at the end of the process
    except RequestError as error:
        _complain(error)
        return _BAD_USAGE
    except LogistreamError as error:
        _complain(error)
        return _FAILED
    except BrokenPipeError:
        _discard_output()
        return _FAILED
    except OSError as error:  # a full disk, mostly
        what = "the output" if error.filename is None else error.filename
        _complain(f"{what} cannot be read or written: {error.strerror or error}")
        _discard_output()
        return _FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED


def _complain(trouble: object) -> None:
    if sys.stderr is not None:
        print(f"logistream: {trouble}", file=sys.stderr, flush=True)


def _discard_output() -> None:
    """Write no more, because the program that reads the output has ended; Python would fail again at exit."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Print a warning of this package as a sentence on stderr, without the line of code that Python shows."""
    with warnings.catch_warnings():
        for ours in (DataWarning, RequestWarning):
            warnings.simplefilter("always", ours)
        show = warnings.showwarning

        def show_sentence(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, DataWarning | RequestWarning):
                _complain(f"note: {message}")
            else:
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_sentence
        yield


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, and that may take options from the environment."""

    reads_environment = False

    def parse_known_args(  # type: ignore[override] # argparse has overloads for one implementation
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        if self.reads_environment:
            _take_environment(self)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(_BAD_USAGE, f"logistream: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="logistream",
        description="Synthetic logistics events, live: fitted to DataCo orders, or to a table of yours.",
        epilog="example: logistream serve --rate 50",
    )
    parser.add_argument("--version", action="version", version=f"logistream {logistream.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in _COMMANDS:
        add(commands)
    return parser


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser(
        "serve",
        help="stream events over a WebSocket",
        description="Stream events over a WebSocket until interrupted. An option that is not given is taken "
        "from the environment, as in LOGISTREAM_RATE=50.",
        epilog="example: logistream serve --rate 50 --port 9000",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    parser.add_argument("--port", type=_whole, default=8000, help="0 takes a free one (default: 8000)")
    parser.add_argument(
        "--unix-socket",
        metavar="PATH",
        help="listen on this Unix socket, which only its owner may use, in place of host and port",
    )
    parser.add_argument("--rate", type=_number, help="events per second at first (default: 2)")
    parser.add_argument("--seed", type=_whole, default=0, help="which of the model's streams (default: 0)")
    parser.add_argument("--model", metavar="FILE", help="a fitted model (default: the shipped one)")
    parser.add_argument(
        "--timeline",
        metavar="FILE",
        help="keep the times of events in this file: a server that is started with it again continues as if "
        "it had never stopped, and servers that share it serve the same stream",
    )
    parser.add_argument(
        "--history",
        metavar="TIME",
        help="how long before the start event 0 happened, such as 5min",
    )
    parser.add_argument(
        "--start",
        metavar="TIME",
        help="start at this time of the past, as in 2020-01-01, in place of --history",
    )
    parser.add_argument(
        "--arrivals",
        default="even",
        choices=("even", "poisson", "bursts"),
        help="how events are spread over time (default: even)",
    )
    parser.add_argument(
        "--scenario",
        metavar="FILE",
        help="what if: a JSON file with a scenario, or a list of them, which takes effect at the start",
    )
    parser.add_argument(
        "--faults",
        metavar="FILE",
        help="what goes wrong on the wire: a JSON file with a fault, or a list of them, from the start on",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="pages that may use the server besides those on this machine, such as https://example.org; "
        "null for pages opened from a file; repeatable",
    )
    parser.add_argument(
        "--token",
        help="require this token (default: one is made if --host is not this machine); other users of this "
        "machine can see it, unlike the one of --token-file",
    )
    parser.add_argument(
        "--token-file", metavar="FILE", help="require the token in the first line of this file"
    )
    parser.add_argument("--read-only", action="store_true", help="refuse to change the stream over HTTP")
    parser.add_argument(
        "--root-path",
        default="",
        metavar="PATH",
        help="under which a proxy shows the server, as in /orders, and which it takes away from requests",
    )
    parser.add_argument(
        "--max-clients",
        type=_readers,
        default=CLIENTS,
        metavar="N",
        help=f"readers at a time (default: {CLIENTS})",
    )
    parser.add_argument(
        "--max-connections",
        type=_readers,
        metavar="N",
        help="connections at a time, readers and HTTP together (default: "
        f"{OTHER_CONNECTIONS} more than --max-clients)",
    )
    parser.add_argument(
        "--catch-up",
        type=_catch_up,
        default=CATCH_UP,
        metavar="RATE",
        help="events per second at most for a reader that catches up with the past, or twice the rate if "
        f"that is more (default: {CATCH_UP:,})",
    )
    parser.add_argument(
        "--catch-up-total",
        type=_catch_up,
        default=CATCH_UP_TOTAL,
        metavar="RATE",
        help="events per second at most for all such readers together, or twice the rate if that is more "
        f"(default: {CATCH_UP_TOTAL:,})",
    )
    parser.add_argument(
        "--workers", type=_whole, default=1, metavar="N", help="processes that share the port (default: 1)"
    )
    parser.add_argument(
        "--access-log", action="store_true", help="write each request to stderr, one JSON object a line"
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "json"),
        default="text",
        help="json: write all that is logged, and the addresses, to stderr, one JSON object a line "
        "(default: text)",
    )
    parser.reads_environment = True
    parser.set_defaults(run=_serve)


def _take_environment(parser: argparse.ArgumentParser) -> None:
    """Take the options that are not given from variables such as LOGISTREAM_RATE for --rate."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public name for it
        name = f"LOGISTREAM_{action.dest.upper()}"
        value = os.environ.get(name)
        if not value or not action.option_strings or action.dest == "help":
            continue
        if action.nargs == 0:
            if value not in ("0", "1"):
                parser.error(f"{name} must be 0 or 1, not {value!r}")
            action.default = value == "1"
        elif isinstance(action.default, list):
            action.default = value.split()
        else:
            try:
                action.default = value if action.type is None else action.type(value)  # type: ignore[operator]
            except (ValueError, argparse.ArgumentTypeError) as error:
                parser.error(f"{name}: {error}")
            if action.choices is not None and value not in action.choices:
                parser.error(f"{name} must be {', '.join(action.choices)}, not {value!r}")


def _token(options: argparse.Namespace) -> str | None:
    """Return the token, from a file if one is named."""
    if options.token is not None and options.token_file is not None:
        raise RequestError("the token is given twice: leave out --token or --token-file")
    if options.token_file is None:
        return options.token  # type: ignore[no-any-return] # argparse has no types
    try:
        with open(options.token_file, encoding="utf-8") as file:  # noqa: PTH123 - as given
            return file.readline().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else "it is not text"
        raise RequestError(f"cannot read the token from {options.token_file}: {reason}") from error


def _whole(given: str) -> int:
    try:
        return int(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {given!r}") from None


def _number(given: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {given!r}") from None


def _readers(given: str) -> int:
    """Return a number of readers; the error message is about readers, not about the name of a limit."""
    try:
        count = int(given)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of readers, at least 1, not {given!r}")
    return count


def _catch_up(given: str) -> float:
    """Return a number of events per second; see `_readers`."""
    try:
        rate = float(given)
    except ValueError:
        rate = 0.0
    if not 1 <= rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of events per second, at least 1, not {given!r}")
    return rate


def _serve(options: argparse.Namespace) -> int:
    if options.log_format == "text":
        return _serve_until_ended(options)
    from logistream.server.logs import log_as_json

    log_as_json()
    try:
        return _serve_until_ended(options)
    except LogistreamError as error:
        logger.error("%s", error)  # noqa: TRY400 - a sentence is enough
        return _BAD_USAGE if isinstance(error, RequestError) else _FAILED


def _serve_until_ended(options: argparse.Namespace) -> int:
    from logistream.model.model import load_model
    from logistream.model.scenario import read_scenarios
    from logistream.server.limits import limits_from
    from logistream.server.server import StreamServer
    from logistream.server.workers import Workers
    from logistream.stream.faults import read_faults

    json_logs = options.log_format == "json"
    settings = {
        "rate": _RATE if options.rate is None else options.rate,
        "seed": options.seed,
        "host": options.host,
        "port": options.port,
        "timeline": options.timeline,
        "history": options.history,
        "start": options.start,
        "arrivals": options.arrivals,
        "allow_origins": options.allow_origin,
        "token": _token(options),
        "read_only": options.read_only,
        "root_path": options.root_path,
        "unix_socket": options.unix_socket,
        "limits": limits_from(
            clients=options.max_clients,
            connections=options.max_connections,
            catch_up=options.catch_up,
            catch_up_total=options.catch_up_total,
        ),
        "access_log": options.access_log,
    }
    if json_logs and settings["token"] is None and not is_loopback(options.host):
        raise RequestError(
            "a token is required and never logged: give one with --token-file or LOGISTREAM_TOKEN"
        )
    change: dict[str, Any] = {}
    if options.scenario is not None:
        change["scenario"] = _read_json("scenario", options.scenario, read_scenarios)
    if options.faults is not None:
        change["faults"] = _read_json("faults", options.faults, read_faults)
    continues = options.timeline is not None and Path(options.timeline).exists()
    terminated = threading.Event()
    ends = [signal.SIGTERM]
    # A terminal that is closed; nohup has it ignored.
    if (hangup := getattr(signal, "SIGHUP", None)) and signal.getsignal(hangup) is not signal.SIG_IGN:
        ends.append(hangup)
    before = {each: signal.signal(each, lambda *_: terminated.set()) for each in ends}
    try:
        if options.workers == 1:
            with StreamServer(load_model(options.model), **settings) as server:
                for name, value in change.items():
                    setattr(server, name, value)
                _announce(server, 1, json_logs)
                if continues:
                    _name_ignored(options, server)
                while not terminated.wait(0.5):  # short waits: on Windows Ctrl-C does not end a wait
                    if not server.running:
                        raise StreamError("the server has stopped unexpectedly: see the log above")
        else:
            workers = Workers(options.workers, options.model, json_logs=json_logs, **settings)
            with workers as server:
                workers.change(**change)
                _announce(server, options.workers, json_logs)
                if continues:
                    _name_ignored(options, server)
                workers.watch(terminated)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    return 0


def _read_json(what: str, path: str, read: Callable[[Any], T]) -> T:
    """Read scenarios or faults from a JSON file; `RequestError` if that is not possible."""
    try:
        return read(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise RequestError(f"{what} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{what} {path} cannot be used: it is not UTF-8 text, so it is not JSON") from None
    except (ValueError, RecursionError) as error:
        why = error if isinstance(error, RequestError) else f"it is not JSON: {error}"
        raise RequestError(f"{what} {path} cannot be used: {why}") from None


def _name_ignored(options: argparse.Namespace, server: StreamServer) -> None:
    """Warn of options that are for a new timeline, if the one that was there says otherwise."""
    rate = f"{server.state['rate']:g}"
    ignored = [f"--{name}" for name in ("history", "start") if getattr(options, name) is not None]
    if options.rate is not None and f"{options.rate:g}" != rate:
        ignored.insert(0, "--rate")
    if ignored:
        logger.warning(
            "%s had no effect: timeline %s goes on as it was, at %s events/s",
            " and ".join(ignored),
            options.timeline,
            rate,
        )


def _announce(server: StreamServer, workers: int, json_logs: bool) -> None:
    """Print what is served, and its addresses; or log it, without the token."""
    state = server.state
    processes = f", {workers} workers" if workers > 1 else ""
    what = f"Streaming {state['model']} at {state['rate']:g} events/s, seed {state['seed']}{processes}"
    if json_logs:
        logger.setLevel(logging.INFO)
        logger.info("%s, on %s", what, server.unix_socket or server.docs_url.removesuffix("/docs"))
        return
    socket = "" if server.unix_socket is None else f"  socket  {server.unix_socket}\n"
    print(
        f"{what}\n{socket}"
        f"  events  {server.websocket_url}\n"
        f"  status  {server.url}\n"
        f"  docs    {server.docs_url}\n"
        f"Ctrl-C stops it.",
        flush=True,
    )


_INTO_KAFKA = r"""Into a Kafka topic of one partition, with kcat and GNU sed. The key of a message is
the number of its event: the same commands, run again after whatever happened, go on
after the newest message.

  last=$(kcat -C -b BROKER -t TOPIC -p 0 -o -1 -c 1 -e -q -f '%k')
  logistream tail --no-faults --numbered --start $((${last:--1} + 1)) |
    sed -uE 's/.*"event_number":([0-9]+)\}$/\1\t&/' |
    kcat -P -b BROKER -t TOPIC -p 0 -K '\t' -X enable.idempotence=true
"""


def _add_tail(commands: Commands) -> None:
    parser = commands.add_parser(
        "tail",
        help="watch a stream",
        description="Show the events of a stream: a live table in a terminal, one event a line in a pipe.",
        epilog=f"{_INTO_KAFKA}\nexample: logistream tail --count 10 > ten.ndjson",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8000/ws", help="(default: %(default)s)")
    parser.add_argument("--count", type=_whole, metavar="N", help="stop after N events (default: never)")
    _add_reading(parser)
    parser.add_argument(
        "--append",
        metavar="FILE",
        help="write numbered events to the end of this file, each with the place of its delivery unless "
        "--no-faults is given, in place of --start from the one after the last that it holds: so that it can "
        "be interrupted, or killed, and started again",
    )
    parser.set_defaults(run=_tail)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """Add what a reader of a stream can ask for."""
    parser.add_argument(
        "--start",
        metavar="WHERE",
        help="an event number, earliest, latest, a time such as 2026-11-24T06:23:00Z, a time before now as "
        "in --start=-10min, or the place of a delivery such as 40.1 (default: latest)",
    )
    parser.add_argument(
        "--columns", metavar="NAMES", help="all, or names with commas between (default: the published ones)"
    )
    parser.add_argument(
        "--where",
        action="append",
        metavar="CONDITION",
        help="only such events, as in Market:Europe, 'Market!=Europe' or 'Sales>=100'; repeatable: values of "
        "one column after : are alternatives, all else must hold together",
    )
    parser.add_argument("--numbered", action="store_true", help="with the number of each event")
    parser.add_argument(
        "--no-faults", action="store_true", help="the events as they happened, without the faults of the wire"
    )
    parser.add_argument("--token", help="required by servers on other machines")


def _reading(options: argparse.Namespace) -> ReadOptions:
    """Return what `_add_reading` has added."""
    start = options.start
    return {
        "start": int(start) if start is not None and start.isdecimal() else start,
        "columns": options.columns,
        "where": options.where,
        "numbered": options.numbered,
        "token": options.token,
    }


def _tail(options: argparse.Namespace) -> int:
    from logistream import tail

    try:
        tail.run(
            options.url,
            count=options.count,
            append=options.append,
            faults=not options.no_faults,
            on_trouble=_complain,
            **_reading(options),
        )
    except BrokenPipeError:  # a reader such as `head` has got all that it needs
        _discard_output()
    return 0


def _add_bridge(commands: Commands) -> None:
    parser = commands.add_parser(
        "bridge",
        help="pass a stream on over plain TCP",
        description="Send the events of a stream as lines of JSON to every program of this machine that "
        "connects, until interrupted: to Spark's socket source, or to nc.",
        epilog="example: logistream bridge --port 9999",
    )
    parser.add_argument("url", nargs="?", default="ws://127.0.0.1:8000/ws", help="(default: %(default)s)")
    parser.add_argument("--port", type=_whole, default=9999, help="0 takes a free one (default: 9999)")
    _add_reading(parser)
    parser.set_defaults(run=_bridge)


def _bridge(options: argparse.Namespace) -> int:
    from logistream import bridge

    def announce(port: int) -> None:
        print(f"Lines of JSON on 127.0.0.1:{port}, from {options.url}\nCtrl-C stops it.", flush=True)

    bridge.run(
        options.url,
        options.port,
        faults=not options.no_faults,
        on_ready=announce,
        on_trouble=_complain,
        **_reading(options),
    )
    return 0


def _add_timeline(commands: Commands) -> None:
    parser = commands.add_parser(
        "timeline",
        help="show a timeline file",
        description="Show the rates and pauses in a timeline file, each with the time from which it holds.",
        epilog="example: logistream timeline orders.timeline",
    )
    parser.add_argument("file", metavar="FILE", help="as given to serve --timeline")
    parser.set_defaults(run=_timeline)


def _timeline(options: argparse.Namespace) -> int:
    from logistream.stream.timeline_file import timeline_table

    print(timeline_table(options.file))
    return 0


def _add_fit(commands: Commands) -> None:
    parser = commands.add_parser(
        "fit",
        help="learn a table",
        description="Learn a table and write the model. DataCo orders are cleaned first.",
        epilog="example: logistream fit sales.csv -o sales.model --types zip=category",
    )
    parser.add_argument(
        "table",
        metavar="TABLE",
        help="Parquet, Feather, Excel, JSON lines, or text with fields between commas, semicolons, tabs or "
        "|; also packed with gzip or zip",
    )
    parser.add_argument("-o", "--output", required=True, metavar="MODEL", help="file to write")
    parser.add_argument(
        "--columns",
        type=_names,
        action="extend",
        metavar="NAMES",
        help="learn only these, with commas between; a name that holds a comma in double quotes",
    )
    parser.add_argument(
        "--drop", type=_names, action="extend", default=[], metavar="NAMES", help="do not learn these"
    )
    parser.add_argument(
        "--types",
        type=_types,
        action="extend",
        default=[],
        metavar="NAME=TYPE",
        help="what a column is: category, boolean, integer, number, timestamp, or the pattern of its dates, "
        "as in sold=%%d/%%m/%%Y; several with commas between",
    )
    parser.add_argument("--name", default="", help="what to call the model")
    parser.set_defaults(run=_fit)


def _names(string: str) -> list[str]:
    """Read column names with commas between, by the rules of CSV."""
    return [name for name in next(csv.reader([string]), []) if name]


def _types(string: str) -> list[tuple[str, str]]:
    """Read types of columns as NAME=TYPE with commas between; the pattern of a date may hold commas."""
    pairs = [part.rpartition("=") for part in re.split(r",(?=[^,=]+=)", string)]
    if not all(name and kind for name, _, kind in pairs):
        raise argparse.ArgumentTypeError(f"must be NAME=TYPE, as in zip=category, not {string!r}")
    return [(name, kind) for name, _, kind in pairs]


def _fit(options: argparse.Namespace) -> int:
    from logistream.dataco import read_table
    from logistream.fitting.fit import fit
    from logistream.tables.files import check_writable

    check_writable(options.output)
    table = read_table(options.table, columns=options.columns, drop=options.drop, types=dict(options.types))
    model = fit(table, name=options.name, progress=True)
    print(f"{model.save(options.output)}: {len(model.schema)} columns learned from {model.rows:,} rows")
    return 0


def _add_sample(commands: Commands) -> None:
    parser = commands.add_parser(
        "sample",
        help="write synthetic rows",
        description="Write synthetic rows of a model to a file.",
        epilog="example: logistream sample -n 10000 -o orders.parquet",
    )
    parser.add_argument("-n", type=_whole, required=True, metavar="N", help="number of rows")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="ends in .parquet, .csv or .ndjson"
    )
    parser.add_argument("--seed", type=_whole, default=0, help="which of the model's tables (default: 0)")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="CONDITION",
        help="only such rows, as in Market:Europe, 'Market!=Europe' or 'Sales>=100'; no value means a "
        "missing one; repeatable: values of one column after : are alternatives, all else must hold together",
    )
    parser.add_argument("--model", metavar="FILE", help="a fitted model (default: the shipped one)")
    parser.set_defaults(run=_sample)


def _sample(options: argparse.Namespace) -> int:
    from logistream.model.model import load_model
    from logistream.tables.files import FORMATS, check_writable, write_table

    check_writable(options.output, FORMATS)
    model = load_model(options.model)
    frame = model.sample(options.n, seed=options.seed, where=options.where)
    written = write_table(
        frame, options.output, {c.name: c.text_format for c in model.schema if c.text_format}
    )
    accepted = frame.attrs.get("acceptance_rate", 1.0)
    rate = f", {accepted:.3g} of the rows drawn" if accepted < 1 else ""
    print(f"{written}: {len(frame):,} rows{rate}")
    return 0


def _add_report(commands: Commands) -> None:
    parser = commands.add_parser(
        "report",
        help="measure how close synthetic rows are to real ones",
        description="Print how close a model's rows are to real rows that it has not seen.",
        epilog="example: logistream report mine.model holdout.csv --train fitted.csv --html report.html",
    )
    parser.add_argument("model", metavar="MODEL", help="a fitted model")
    parser.add_argument("holdout", metavar="HOLDOUT", help="real rows that were not fitted, CSV or Parquet")
    parser.add_argument("--train", metavar="FILE", help="the rows that were fitted, to look for copies")
    parser.add_argument("--target", metavar="COLUMN", help="a column of two values to predict")
    parser.add_argument(
        "--attack",
        action="store_true",
        help="try to find out which rows were fitted, by membership inference; needs --train",
    )
    parser.add_argument("--html", metavar="FILE", help="also write an HTML page")
    parser.add_argument("--seed", type=_whole, default=0, help="of the synthetic rows (default: 0)")
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from logistream.dataco import read_table
    from logistream.model.model import load_model

    model = load_model(options.model)
    paths = [options.holdout, *([] if options.train is None else [options.train])]
    holdout, *train = (read_table(path, model.schema) for path in paths)
    report = model.report(
        holdout,
        train=train[0] if train else None,
        target=options.target,
        attack=options.attack,
        seed=options.seed,
        progress=True,
    )
    print(report)
    if options.html is not None:
        print(f"\nwritten to {report.to_html(options.html)}")
    return 0


def _add_verify(commands: Commands) -> None:
    parser = commands.add_parser(
        "verify",
        help="find out what a pipeline did to the events",
        description="Compare a sink with the stream that it was filled from: what was lost, doubled,\n"
        "reordered, altered or late, and whether the wire or the pipeline did it. The exit code\n"
        "is 0 if the pipeline did nothing wrong, 1 if it did, and 2 if that cannot be found out.",
        epilog="example: logistream verify orders.parquet --url http://127.0.0.1:8000\n"
        "example: logistream verify orders/ --timeline orders.timeline --window 1min --watermark 30s "
        "--by Market --sum Sales -o sums.csv",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sink",
        nargs="+",
        metavar="SINK",
        help="Parquet or NDJSON files, or a folder of them, with event numbers",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--url", help="the server of the stream")
    source.add_argument("--timeline", metavar="FILE", help="its timeline file, as given to serve --timeline")
    parser.add_argument("--model", metavar="FILE", help="a fitted model (default: the shipped one)")
    parser.add_argument(
        "--start", type=_whole, metavar="N", help="the first event (default: the first in the sink)"
    )
    parser.add_argument(
        "--stop",
        type=_whole,
        metavar="N",
        help="the event after the last one (default: after that in the sink)",
    )
    parser.add_argument("--any-order", action="store_true", help="do not check the order of the rows")
    parser.add_argument(
        "--no-faults", action="store_true", help="the sink was filled from the stream without its faults"
    )
    parser.add_argument(
        "--arrived", metavar="COLUMN", help="a column with the time at which each row arrived"
    )
    parser.add_argument(
        "--late", metavar="TIME", help="how long after its event a row may arrive (default: 30s)"
    )
    parser.add_argument(
        "--window", metavar="TIME", help="also print the right sums of windows of this length"
    )
    parser.add_argument(
        "--watermark",
        metavar="TIME",
        help="leave out events that come when their window is over by the watermark of the pipeline, which "
        "is so far behind the newest event",
    )
    parser.add_argument(
        "--by", type=_names, action="extend", default=[], metavar="NAMES", help="columns to divide windows by"
    )
    parser.add_argument(
        "--sum",
        type=_names,
        action="extend",
        default=[],
        metavar="NAMES",
        help="columns to sum up; the events are always counted",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the sums to a .csv, .parquet or .ndjson file"
    )
    parser.add_argument("--token", help="required by servers on other machines")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from logistream.tables.files import FORMATS, check_writable, write_table
    from logistream.verification.verify import verify

    try:
        if options.output is not None:
            if options.window is None:
                raise RequestError("--output needs --window: it is for the sums of windows")
            check_writable(options.output, FORMATS)
        found = verify(
            options.sink,
            Path(options.timeline) if options.url is None else websocket_url(options.url),
            model=options.model,
            start=options.start,
            stop=options.stop,
            ordered=not options.any_order,
            faults=not options.no_faults,
            arrived=options.arrived,
            late=options.late,
            window=options.window,
            watermark=options.watermark,
            by=options.by,
            sums=options.sum,
            token=options.token,
        )
        print(found)
        if found.windows is not None and options.output is None:
            print(f"\n{found.windows.to_string(index=False)}")
        elif found.windows is not None:
            print(f"\nsums of windows: {write_table(found.windows, options.output)}")
    except LogistreamError as error:
        _complain(error)
        return _BAD_USAGE  # 1 is what the pipeline did
    return 0 if found.ok else _FAILED


_COMMANDS: tuple[Callable[[Commands], None], ...] = (
    _add_serve,
    _add_tail,
    _add_bridge,
    _add_timeline,
    _add_fit,
    _add_sample,
    _add_report,
    _add_verify,
)
