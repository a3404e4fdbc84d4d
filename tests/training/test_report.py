"""The report of a run: page, pictures, document, returns, tables."""

import dataclasses
import io
import json
import math
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rich.console import Console
from tests.support.training_runs import Shape, run_result

from tickgate_server.models.verdict import CHECKS, CheckName, check, judge
from tickgate_training import report
from tickgate_training.backtest import Backtest
from tickgate_training.leaks import Suspicion, SuspicionReason
from tickgate_training.metrics import Metrics, measure
from tickgate_training.portfolio import combine
from tickgate_training.report import canvas, page, plots, sheets, wording
from tickgate_training.report.conventions import conventions
from tickgate_training.report.diagnostics import Reliability, plateau, reliability
from tickgate_training.report.thinning import thinned
from tickgate_training.results import RunResult, Series, ThresholdCurve

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "[bold]x[/bold]")
ODD_FEATURES = ("<b>ret</b>", r"$\frac{", "\u6ce8\u6587", "a" * 60)
SHAPES = {
    "plain": Shape(),
    "one window, one trial": Shape(windows=1, trials=1),
    "no round trip": Shape(never=True),
    "nothing known": Shape(unknown=True, never=True),
    "224 windows": Shape(windows=224, test_rows=5, validation_rows=20, trials=2),
    "odd names": Shape(symbols=HOSTILE, features=ODD_FEATURES, windows=3),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    return run_result(tmp_path_factory.mktemp("run"), SHAPES["plain"])


@pytest.fixture(scope="module", params=SHAPES)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, report.Files, str]:
    result = run_result(tmp_path_factory.mktemp("run"), SHAPES[request.param])
    return result, report.write(result, result.folder), request.param


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_but_itself(written: tuple[RunResult, report.Files, str]) -> None:
    found = Page(written[1].page)
    assert not {"script", "iframe", "object", "embed", "form"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("data:", "#"))
    assert sum(tag == "img" for tag, _ in found.tags) == 7
    styles = written[1].page.read_text(encoding="utf-8").partition("</style>")[0]
    assert "url(" not in styles
    assert "@import" not in styles


def test_links_within_the_page_lead_somewhere(written: tuple[RunResult, report.Files, str]) -> None:
    found = Page(written[1].page)
    places = {attributes.get("id") for _, attributes in found.tags}
    links = [attributes["href"] or "" for tag, attributes in found.tags if tag == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= places


def test_every_picture_is_a_png_beside_the_page_without_a_word_on_its_making(
    written: tuple[RunResult, report.Files, str],
) -> None:
    assert [path.stem for path in written[1].plots] == [
        *("equity", "windows", "logits", "thresholds", "calibration", "importance", "psi")
    ]
    for path in written[1].plots:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG\r\n")
        assert int.from_bytes(content[16:20], "big") == canvas.COLUMNS
        assert not [chunk for chunk in (b"tEXt", b"iTXt", b"tIME") if chunk in content[:200]]


def test_names_with_markup_in_them_are_shown_as_they_are(tmp_path: Path) -> None:
    result = run_result(tmp_path, SHAPES["odd names"])
    files = report.write(result, tmp_path)
    found = Page(files.page)
    for name in (*HOSTILE, *ODD_FEATURES):
        assert name in found.text
    assert "<script" not in files.page.read_text(encoding="utf-8")
    assert "<b>" not in files.page.read_text(encoding="utf-8")
    console = Console(file=io.StringIO(), width=300)
    report.show(result, console)
    assert "[bold]x[/bold]" in console.file.getvalue()  # type: ignore[attr-defined]


def nulls(found: Any, path: str = "") -> Iterator[tuple[str, bool]]:
    """Each key of a dict whose value is null or holds one, and whether `undefined` beside it names it."""
    if isinstance(found, dict):
        for key, value in found.items():
            held = value is None or (isinstance(value, list) and holds_null(value))
            if held:
                yield f"{path}.{key}", bool(found.get("undefined", {}).get(key))
            yield from nulls(value, f"{path}.{key}")
    elif isinstance(found, list):
        for value in found:
            yield from nulls(value, path)


def holds_null(values: list[Any]) -> bool:
    return any(value is None or (isinstance(value, list) and holds_null(value)) for value in values)


def test_every_null_of_the_document_has_its_reason(written: tuple[RunResult, report.Files, str]) -> None:
    found = json.loads(written[1].document.read_bytes(), parse_constant=pytest.fail)
    del found["configuration"]
    without = [path for path, explained in nulls(found) if not explained]
    assert without == []
    if written[2] == "nothing known":
        assert len(list(nulls(found))) > 100


def test_what_is_undefined_says_why_on_the_page(tmp_path: Path) -> None:
    text = Page(report.write(run_result(tmp_path, SHAPES["nothing known"]), tmp_path).page).text
    for why in ("no round trip", "the returns do not vary", "no test row has both a prediction and a label"):
        assert f"undefined {why}" in text
    shown = text.partition("How each figure is defined")[0]
    assert "nan" not in shown.lower().replace("%", " ").split()
    assert "None" not in shown.split()


def test_the_document_reads_back_to_the_same_bits(plain: RunResult) -> None:
    found = json.loads(report.encode(report.document(plain)))
    assert found["format_version"] == 1
    assert found["selected"]["net"]["sharpe"] == plain.selected.net.sharpe
    assert found["selected"]["net"]["periods"] == plain.selected.net.periods
    assert [window["net_return"] for window in found["windows"]] == [window.net_return for window in plain.windows]
    assert [trial["series"]["net"]["sharpe"] for trial in found["trials"]] == [
        trial.series.net.sharpe for trial in plain.trials
    ]
    assert found["overfitting"]["logits"] == plain.overfitting.logits.tolist()
    np.testing.assert_array_equal(found["psi"]["by_window"], plain.diagnostics.psi)
    assert found["configuration"]["package"]["name"] == "sp500-daily"
    keys = list(found)
    assert keys == sorted(keys)


def test_a_second_run_gives_the_same_bytes_wherever_and_however_long_it_ran(tmp_path: Path) -> None:
    one = run_result(tmp_path / "a", Shape(windows=3))
    two = dataclasses.replace(run_result(tmp_path / "b", Shape(windows=3)), seconds=99.0)
    first, second = (report.write(result, result.folder) for result in (one, two))
    assert first.document.read_bytes() == second.document.read_bytes()
    assert first.page.read_bytes() == second.page.read_bytes()
    for a, b in zip(first.plots, second.plots, strict=True):
        assert a.read_bytes() == b.read_bytes()


def test_the_users_matplotlib_settings_change_nothing_and_are_left_alone(plain: RunResult) -> None:
    found = report.document(plain)
    expected = plots.draw(found, plain.selected)
    with mpl.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "black", "savefig.dpi": 30}):
        assert plots.draw(found, plain.selected) == expected
        assert mpl.rcParams["lines.linewidth"] == 9.0
        assert mpl.rcParams["text.parse_math"] is True


def test_the_axis_says_whether_the_times_are_of_decisions_or_of_returns_of_several_symbols(plain: RunResult) -> None:
    label = plots.equity(plain.selected).axes[1].get_xlabel()
    assert label.startswith("time of the decision (UTC), 1999-03-22 to ")
    result = plain.selected.result
    assert isinstance(result, Backtest)
    stamps_ns = np.arange(result.start + result.positions.size + 2) * 86_400_000_000_000
    together = combine({"A": (stamps_ns, result), "B": (stamps_ns, result)})
    several = dataclasses.replace(plain.selected, result=together, stamps_ns=together.stamps_ns)
    assert plots.equity(several).axes[1].get_xlabel().startswith("time when each return was complete (UTC), ")


def test_returns_are_written_as_they_are(written: tuple[RunResult, report.Files, str]) -> None:
    series = written[0].selected
    frame = pl.read_parquet(written[1].returns)
    assert frame.columns == ["stamps_ns", "gross", "net"]
    assert frame["stamps_ns"].to_numpy().tobytes() == series.stamps_ns.tobytes()
    assert frame["gross"].to_numpy().tobytes() == series.result.gross.tobytes()
    assert frame["net"].to_numpy().tobytes() == series.result.net.tobytes()


@pytest.mark.parametrize("name", ["report.html", "report.json", "returns.parquet", "plots/psi.png"])
def test_a_file_that_cannot_be_put_in_its_place_leaves_none_half_written(
    plain: RunResult, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(OSError, match=name.rpartition("/")[2]):
        report.write(plain, tmp_path)
    assert not list(tmp_path.rglob("*.unfinished"))


def test_the_headline_says_what_was_run(plain: RunResult, tmp_path: Path) -> None:
    text = Page(report.write(plain, tmp_path).page).text
    said = "SPX: 562 rows, 9 features, 4 trials of lightgbm and logistic over 12 windows, out of sample 1999-03-22 to "
    assert said + "2000-07-13." in text


def test_each_check_stands_with_its_value_beside_its_limit_and_a_required_one_that_was_not_made_is_missing(
    plain: RunResult,
) -> None:
    rows = [[cell.text for cell in row] for row in sheets.checks(report.document(plain)).rows]
    trips = str(plain.selected.net.round_trips)
    assert rows == [
        ["deflated Sharpe 2014", "0.963", "at least 0.950", "passed", "required", ""],
        ["backtest overfitting", "not known", "at most 0.500", "not known", "required", "too few rows to split"],
        ["parity difference", "3.1e-07", "at most 1.0e-05", "passed", "required", ""],
        ["parity rows", "480", "at least 480", "passed", "required", ""],
        ["round trips", trips, "at least 30", "passed", "required", ""],
        ["random p value", "0.200", "at most 0.0500", "failed", "for information", ""],
        ["track record 2012", "", "", "missing", "required", "it was not made"],
    ]


GOOD = {
    CheckName.DEFLATED_SHARPE_2014: (0.99, 0.95),
    CheckName.BACKTEST_OVERFITTING: (0.1, 0.5),
    CheckName.PARITY_DIFFERENCE: (1e-7, 1e-5),
    CheckName.PARITY_ROWS: (480.0, 480.0),
    CheckName.ROUND_TRIPS: (100.0, 30.0),
    CheckName.TRACK_RECORD_2012: (900.0, 800.0),
}


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({}, "Fit for promotion: all 6 required checks passed."),
        ({CheckName.RANDOM_P_VALUE: (0.9, 0.05)}, "Fit for promotion: all 6 required checks passed."),
        (
            {CheckName.ROUND_TRIPS: (3.0, 30.0), CheckName.BACKTEST_OVERFITTING: (math.nan, 0.5)},
            "Not fit for promotion: of 6 required checks 1 failed (round trips), 1 not known (backtest overfitting).",
        ),
        (
            {CheckName.TRACK_RECORD_2012: None, CheckName.PARITY_ROWS: (480.0, math.nan)},
            "Not fit for promotion: of 6 required checks 1 not known (parity rows), 1 missing (track record 2012).",
        ),
    ],
)
def test_the_verdict_is_one_plain_sentence(
    plain: RunResult, values: dict[CheckName, tuple[float, float] | None], sentence: str
) -> None:
    made = judge(tuple(check(name, *held) for name, held in (GOOD | values).items() if held is not None), 4)
    found = report.document(dataclasses.replace(plain, verdict=made))
    assert sheets.verdict_sentence(found) == sentence
    assert {name for name, rule in CHECKS.items() if rule.required} == set(GOOD)


def test_an_override_is_never_taken_for_a_pass(plain: RunResult) -> None:
    overridden = plain.verdict.overridden("<risk desk>", "trial on paper")
    found = report.document(dataclasses.replace(plain, verdict=overridden))
    assert sheets.verdict_sentence(found) == (
        "Promoted by an explicit override only: of 6 required checks 1 not known (backtest overfitting), "
        "1 missing (track record 2012)."
    )
    html = page.render(found, plots.draw(found, plain.selected), None)
    assert '<div class="verdict failed">' in html
    assert "&lt;risk desk&gt;" in html
    assert "trial on paper" in html


def test_what_is_too_good_to_be_true_is_said_on_the_page_and_in_the_terminal(plain: RunResult, tmp_path: Path) -> None:
    doubt = Suspicion(SuspicionReason.ACCURACY_IMPLAUSIBLE, 0.97, 0.9)
    result = dataclasses.replace(plain, suspicions=(doubt,))
    assert "LEAK_ACCURACY_IMPLAUSIBLE 0.970 0.900" in Page(report.write(result, tmp_path).page).text
    console = Console(file=io.StringIO(), width=200)
    report.show(result, console)
    assert "LEAK_ACCURACY_IMPLAUSIBLE" in console.file.getvalue()  # type: ignore[attr-defined]


def test_every_metric_is_in_the_table_and_has_its_convention(plain: RunResult) -> None:
    fields = set(Metrics.__dataclass_fields__) - {"undefined", "periods_per_year"}
    assert {row.field for row in wording.metric_rows()} == fields
    assert len({row.label for row in wording.metric_rows()}) == len(fields)
    assert list(conventions()) == list(Metrics.__dataclass_fields__)
    assert all(len(text) > 8 for text in conventions().values())
    assert conventions()["max_drawdown"].endswith("Undefined once a return is -1 or below.")
    assert list(conventions(Reliability)) == list(Reliability.__dataclass_fields__)
    labels = [row[0].text for row in sheets.results(report.document(plain)).rows]
    assert labels[: len(fields)] == [row.label for row in wording.metric_rows()]


def test_trials_stand_in_the_order_of_what_they_earned_on_validation(plain: RunResult) -> None:
    first, second, *others = plain.trials
    lost = dataclasses.replace(first, validation_net_return=math.nan)
    found = report.document(dataclasses.replace(plain, trials=(lost, second, *others)))
    rows = sheets.trials(found).rows
    ranked = sorted((second, *others), key=lambda trial: -trial.validation_net_return)
    assert [row[0].text for row in rows] == [str(t.configuration.number) for t in ranked] + ["0"]
    assert rows[-1][3].text == "undefined"
    assert [row[0].text for row in sheets.trials(found, 2).rows] == [row[0].text for row in rows[:2]]
    assert [row[2].text for row in sheets.trials(found).rows if row[0].text == "1"] == ["leaves 5"]
    assert sheets.common_parameters(found)["lightgbm"].startswith("trees 60, learning_rate 0.05")


def test_the_terminal_shows_results_checks_and_verdict(plain: RunResult) -> None:
    console = Console(file=io.StringIO(), width=200)
    report.show(plain, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    for expected in (
        *("Stitched out-of-sample results", "selected, gross", "always long, net", "Overfitting, 4 trials"),
        *("Checks for promotion", "Not fit for promotion", "562 rows of SPX in 1.5 s."),
        wording.percent(plain.selected.net.total_return_summed),
    ):
        assert expected in shown


def series_of(plain: RunResult, net: list[float]) -> Series:
    n = np.array(net)
    held = Backtest(0, np.ones(n.size), n, n, np.zeros(n.size), np.ones(n.size), n[:1], n[:1])
    stamps_ns = plain.selected.stamps_ns[: n.size]
    return dataclasses.replace(plain.selected, stamps_ns=stamps_ns, result=held, net=measure(held, 1.0))


def test_equity_is_compounded_from_a_capital_of_one(plain: RunResult) -> None:
    drawn = plots.equity(series_of(plain, [0.1, -0.5, 0.2]))
    top, bottom = drawn.axes
    assert "compounded" in top.get_ylabel()
    np.testing.assert_allclose(top.lines[1].get_ydata(), [1.0, 1.1, 0.55, 0.66])
    np.testing.assert_allclose(bottom.lines[1].get_ydata(), [0.0, 0.0, -0.5, -0.4])


def test_equity_is_summed_where_compounding_is_undefined(plain: RunResult) -> None:
    top, bottom = plots.equity(series_of(plain, [0.5, -1.0, 0.25])).axes
    assert "summed" in top.get_ylabel()
    np.testing.assert_allclose(top.lines[1].get_ydata(), [1.0, 1.5, 0.5, 0.75])
    assert "capital is gone" in bottom.texts[0].get_text()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_returns_that_are_no_numbers_are_said_not_drawn(plain: RunResult, bad: float) -> None:
    top, _ = plots.equity(series_of(plain, [0.1, bad, 0.2])).axes
    assert not top.lines
    assert "not every return is a finite number" in top.texts[0].get_text()


def test_splits_at_the_median_are_drawn_among_those_that_pbo_counts() -> None:
    values = [-1.1, 0.0, 0.0, 0.0, 1.1, 1.1]
    (axes,) = plots.logits({"logits": values, "pbo": 4 / 6}).axes
    bars = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axes.patches]  # type: ignore[attr-defined]
    assert sum(height for middle, height in bars if middle < 0.0) == 4
    assert sum(height for _, height in bars) == 6


stamps = st.lists(st.integers(0, 10**6), min_size=1, max_size=300).map(sorted)


@given(stamps, st.integers(1, 12), st.randoms(use_true_random=False))
def test_thinning_keeps_of_each_column_the_ends_and_the_extremes(stamps: list[int], columns: int, random: Any) -> None:
    values = np.array([random.choice([math.nan, float(random.randint(-5, 5))]) for _ in stamps])
    at = np.array(stamps, np.int64)
    kept = thinned(at, values, columns)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert kept.size <= max(4 * columns, 0)
    if at.size <= 4 * columns:
        assert kept.tolist() == list(range(at.size))
        return
    span = max(stamps[-1] - stamps[0], 1)
    expected: dict[int, list[int]] = {}
    for row, stamp in enumerate(stamps):
        expected.setdefault(min(int((stamp - stamps[0]) / span * columns), columns - 1), []).append(row)
    for rows in expected.values():
        inside = [row for row in rows if row in kept]
        assert {rows[0], rows[-1]} <= set(inside)
        known = [float(values[row]) for row in rows if not math.isnan(values[row])]
        if known:
            seen = [float(values[row]) for row in inside if not math.isnan(values[row])]
            assert (min(seen), max(seen)) == (min(known), max(known))


def test_reliability_by_hand() -> None:
    p = np.array([0.2, 0.2, 0.2, 0.8, 0.8, math.nan, 0.9])
    up = np.array([0, 0, 1, 1, 1, 1, -1], np.int8)
    found = reliability(p, up)
    assert found.rows == 5
    assert found.base_rate == pytest.approx(3 / 5)
    assert found.brier == pytest.approx((0.04 + 0.04 + 0.64 + 0.04 + 0.04) / 5)
    assert found.brier_of_base_rate == pytest.approx(0.24)
    assert found.log_loss == pytest.approx(-(4 * math.log(0.8) + math.log(0.2)) / 5)
    assert found.log_loss_of_base_rate == pytest.approx(-(3 * math.log(0.6) + 2 * math.log(0.4)) / 5)
    np.testing.assert_allclose(found.predicted, [0.2, 0.8])
    np.testing.assert_allclose(found.observed, [1 / 3, 1.0])
    assert found.counts.tolist() == [3, 2]
    assert found.calibration_error == pytest.approx(3 / 5 * (1 / 3 - 0.2) + 2 / 5 * 0.2)
    # Wilson's interval of 1 in 3 and 2 in 2 at 95 %.
    np.testing.assert_allclose(found.lower, [0.0615, 0.3424], atol=1e-4)
    np.testing.assert_allclose(found.upper, [0.7923, 1.0], atol=1e-4)


def test_without_a_labelled_row_reliability_is_undefined() -> None:
    found = reliability(np.array([0.3, math.nan]), np.array([-1, 1], np.int8))
    assert found.rows == 0
    assert math.isnan(found.brier)
    assert found.counts.size == 0


def test_a_certainty_that_was_wrong_has_infinite_log_loss() -> None:
    assert reliability(np.array([1.0, 0.5]), np.array([0, 1], np.int8)).log_loss == math.inf


@given(st.lists(st.tuples(st.floats(0.0, 1.0), st.booleans()), min_size=1, max_size=80))
def test_bins_hold_every_row_once_in_ascending_order(rows: list[tuple[float, bool]]) -> None:
    p, up = np.array([p for p, _ in rows]), np.array([up for _, up in rows], np.int8)
    found = reliability(p, up)
    assert found.counts.sum() == len(rows)
    assert 1 <= found.counts.size <= 10
    assert (np.diff(found.predicted) > 0.0).all()
    assert found.counts @ found.predicted == pytest.approx(p.sum())
    assert found.counts @ found.observed == pytest.approx(up.sum())
    assert (found.lower <= found.observed + 1e-12).all()
    assert (found.upper >= found.observed - 1e-12).all()


def curve(window: int, at: list[float], net: list[float]) -> ThresholdCurve:
    return ThresholdCurve(window, np.array(at), np.array(net))


def test_the_plateau_is_the_quartiles_of_the_windows_that_have_candidates_on_both_sides() -> None:
    found = plateau((curve(0, [0.5, 0.6], [0.0, 1.0]), curve(1, [0.5, 0.7], [2.0, 2.0]), curve(2, [], [])))
    assert found.thresholds[[0, -1]].tolist() == [0.5, 0.7]
    assert found.thresholds.size == 101
    assert found.windows[[0, -1]].tolist() == [2, 1]
    middle = 25  # threshold 0.55: 0.5 of the first, 2 of the second
    assert found.median[middle] == pytest.approx(1.25)
    assert found.lower[middle] == pytest.approx(0.5 + 0.25 * 1.5)
    assert found.upper[middle] == pytest.approx(0.5 + 0.75 * 1.5)
    assert found.median[-1] == pytest.approx(2.0)


def test_where_few_windows_have_candidates_there_is_no_plateau() -> None:
    short = [curve(k, [0.5, 0.6], [1.0, 1.0]) for k in range(8)]
    found = plateau((*short, curve(8, [0.5, 0.9], [1.0, 1.0])))
    assert np.isfinite(found.median[found.thresholds <= 0.6]).all()
    assert np.isnan(found.median[found.thresholds > 0.61]).all()
    assert plateau((curve(0, [], []),)).thresholds.size == 0
    assert plateau((curve(0, [0.7], [3.0]),)).median.tolist() == [3.0]


@pytest.mark.parametrize(
    ("value", "as_percent", "as_number"),
    [
        (None, "undefined", "undefined"),
        (math.nan, "undefined", "undefined"),
        (math.inf, "infinite", "infinite"),
        (-math.inf, "minus infinite", "minus infinite"),
        (0.0, "0.00%", "0"),
        (0.12345, "12.35%", "0.123"),
        (-0.0012345, "-0.123%", "-0.00123"),
        (0.00000123, "0.000123%", "1.2e-06"),
        (1.5e-9, "1.5e-07%", "1.5e-09"),
        (2.345678, "234.57%", "2.35"),
        (30.0, "3,000%", "30"),
        (12345.678, "1,234,568%", "12,346"),
    ],
)
def test_numbers_have_sensible_digits(value: float | None, as_percent: str, as_number: str) -> None:
    assert wording.percent(value) == as_percent
    assert wording.number(value) == as_number


def test_times_are_for_people_and_in_utc() -> None:
    assert wording.date(946_684_800_000_000_000) == "2000-01-01"
    assert wording.date(946_684_800_000_000_000 + 3_723_999_999_999) == "2000-01-01 01:02:03 UTC"
    assert wording.date(-1) == "1969-12-31 23:59:59 UTC"


def test_psi_counts_the_windows_over_the_null(plain: RunResult) -> None:
    psi: NDArray[np.float64] = np.array([[0.1, 0.5], [0.3, math.nan], [0.4, 0.1]])
    seen = dataclasses.replace(plain.diagnostics, psi=psi, psi_null=np.array([0.25, 0.2]), importance=psi * math.nan)
    result = dataclasses.replace(plain, diagnostics=seen, windows=plain.windows[:3], feature_names=("a", "b"))
    found = report.document(result)
    assert found["psi"]["share_above_null"] == [2 / 3, 1 / 2]
    assert found["psi"]["by_window"][1][1] is None
    assert found["importance"]["windows"] == 0
    assert found["importance"]["mean"] == [None, None]
    assert "no importance" in found["importance"]["undefined"]["mean"]


def test_costs_are_what_lies_between_gross_and_net(plain: RunResult) -> None:
    result = plain.selected.result
    found = report.document(plain)["costs"]
    assert found["paid"] == pytest.approx(result.gross.sum() - result.net.sum())
    # Half a point of fee and half a point of spread on each trade.
    assert found["paid_bps"] == pytest.approx(1.0)
    assert found["settings"] == {"fee_bps": 0.5, "half_spread_bps": 0.5, "impact": 0.0}
