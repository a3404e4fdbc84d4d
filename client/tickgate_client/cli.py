"""The command `tickgate`: verbs from entry-point group `tickgate.verbs`, each imported only when it is run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from types import MappingProxyType

import click

from tickgate_client import plugins
from tickgate_client.errors import ExtraMissing

GROUP = "tickgate.verbs"

# One line for each verb of our own: `tickgate --help` imports none of them.
_SUMMARIES: Mapping[str, str] = MappingProxyType(
    {
        "archive": "Keep the decision log: journals as Parquet files, by day and model.",
        "check-data": "Hold a recorded file to the server's rules: rows by reason, gaps, price jumps, spreads.",
        "config": "Show the settings in force, and where each came from.",
        "demo": "Train on S&P 500 and NASDAQ bars, serve, replay the last year, show the signals.",
        "explain": "Explain one decision: its tick, features, prediction and why, checks and limits, timings.",
        "export-features": "Write the newest vectors of SYMBOLS from Redis to an Arrow or Parquet file.",
        "feed": "Publish market data from a source: each tick at least once, a symbol's in order.",
        "fundamentals": "Share slow values of the symbols with every server, through Redis.",
        "halt": "Kill switch: let no order pass, and have clients cancel their working ones.",
        "health": "Ask a server whether it serves; exit 0 only for SERVING.",
        "journal": "Read and verify a server's journal: every input that changed state, and every decision.",
        "models": "See which model versions serve, load and promote them, and compare them.",
        "observe": "Follow a journal: serve its metrics and write its control block.",
        "paper": "Trade recorded ticks on paper, from feed to portfolio, as CONFIG (a TOML file) says.",
        "parity": "Compare the features that were served with training's of the same ticks, bit for bit.",
        "portfolio": "See what is held, open and lost, and correct it.",
        "predict": "Ask a server for one signal.",
        "query": "Ask the decision log: one SELECT over Parquet and the live journal at once.",
        "reduce": "Let only orders pass that reduce a position.",
        "replay": "Decide again what a journal recorded, and compare bit for bit.",
        "replay-ticks": "Send recorded ticks through a server; count answers and latencies.",
        "resume": "Trade again; this also confirms the portfolio as the server has it.",
        "retrain": "Fit a challenger on newer data, and let it take over where it is better, as CONFIG (TOML) says.",
        "risk": "See the limits in force, and have changed ones take effect.",
        "serve": "Serve Predict from a folder of model packages.",
        "sla": "See what calls did against what was promised.",
        "store": "Level 2 of the feature store, in Redis: its status, and running its process by hand.",
        "top": "Watch a server: rate, latency per stage, rejections, models, portfolio, health.",
        "train": "Validate a model walk-forward and publish it as CONFIG (a TOML file) says.",
        "train-regimes": "Fit a hidden Markov model of the regime on the data that CONFIG (a TOML file) names.",
    }
)


class _MissingExtra(click.ClickException):
    exit_code = 2


class VerbGroup(click.Group):
    """A group whose commands are entry points: all are listed, and only the one that runs is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Every verb that is registered, whether its extra is installed or not."""
        return sorted({*plugins.registered(GROUP), *super().list_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one verb; a missing extra is an error that names it and exits with 2."""
        entry = plugins.registered(GROUP).get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            command = plugins.load(entry, f"`tickgate {cmd_name}`")
        except ExtraMissing as error:
            raise _MissingExtra(str(error)) from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"verb {cmd_name!r} is {entry.value}, which is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's
        """List the verbs with a line each, and what to install where an extra is missing."""
        entries = plugins.registered(GROUP)
        rows = [(name, _summary(name, entries[name])) for name in entries]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _summary(name: str, entry: EntryPoint) -> str:
    extra = plugins.missing_extra(entry)
    note = "" if extra is None else f"(needs tickgate[{extra}])"
    if plugins.is_own(entry):
        return f"{_SUMMARIES.get(name, '')} {note}".strip()
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        # Somebody else's verb must not take the help of all others with it.
        return f"(cannot be loaded: {error})"
    return command.get_short_help_str(80) if isinstance(command, click.Command) else "(no click command)"


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tickgate", prog_name="tickgate")
def main() -> None:
    """Machine-learned trading signals inside a deadline: train, validate, serve and gate them over gRPC."""


if __name__ == "__main__":
    main()
