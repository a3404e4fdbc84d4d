"""The file of a regime model: the server's filter on it is hmmlearn's and causal; an observer reads it; the command."""

import json
import math
import subprocess
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from tests.journal.journal_samples import approved, tick
from tests.support.processes import TICKGATE
from tests.training.regime_markets import MINUTES, START_NS, chain, planted

from tickgate_server.control_block import FILE_NAME as CONTROL_FILE
from tickgate_server.control_block import ControlBlockReader, Slot
from tickgate_server.journal.writer import JournalWriter
from tickgate_server.risk import data as risk_data
from tickgate_server.risk.bars import Bars
from tickgate_server.risk.estimates import RiskEstimates, RiskValueSettings
from tickgate_server.risk.hidden_markov import HiddenMarkovParameters, load
from tickgate_server.risk.regimes import Regime
from tickgate_training.data import table
from tickgate_training.data.daily import read_bars
from tickgate_training.errors import ParityBroken
from tickgate_training.regime_commands import FILE_NAME, train_regimes
from tickgate_training.regime_file import RegimeOrigin, check_parity, filtered, origin_path, write
from tickgate_training.regime_model import RegimeConfig, RegimeModel, fit
from tickgate_training.regime_windows import observe_windows
from tickgate_training.risk_data import DAILY

DAILY_CONFIG = Path(__file__).resolve().parents[2] / "training" / "configs" / "daily.toml"
KINDS = {
    f"{covariance}-{states}-{len(features)}": RegimeConfig.model_validate(
        {"covariance_type": covariance, "states": states, "features": features, "restarts": 1}
    )
    for covariance in ("full", "diag")
    for states in (1, 3)
    for features in (("log_return", "log_realised_volatility"), ("log_realised_volatility",))
}
"""Models of each kind, by name."""
TWO = RegimeConfig(states=2, restarts=1)


def observations(config: RegimeConfig, seed: int = 1, windows: int = 150) -> NDArray[np.float64]:
    """Of three states whose features are correlated, in the order of `config`."""
    rng = np.random.default_rng(seed)
    states = chain(np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]), windows, rng)
    noise = rng.normal(size=(windows, 2)) @ np.array([[0.01, 0.1], [0.0, 0.35]])
    found = np.array([[0.0, -7.0], [0.01, -6.3], [-0.01, -5.5]])[states] + noise
    return found if len(config.features) == 2 else found[:, 1:]


def slow_forward(parameters: HiddenMarkovParameters, observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each state given the observations up to each, in logarithms, a state and a path at a time.

    A missing observation says nothing: what is known of the state then is what was predicted.
    """
    k, d = len(parameters.regimes), len(parameters.features)
    before = [math.log(value) for value in parameters.start]
    found = []
    for x in observed:
        now = list(before)
        if np.isfinite(x).all():
            for state, matrix in enumerate(parameters.matrices()):
                far = x - np.array(parameters.means[state])
                exponent = far @ np.linalg.solve(matrix, far)
                now[state] -= 0.5 * (d * math.log(2 * math.pi) + np.linalg.slogdet(matrix)[1] + exponent)
        total = np.logaddexp.reduce(now)
        now = [value - total for value in now]
        found.append([math.exp(value) for value in now])
        before = [
            float(np.logaddexp.reduce([now[i] + math.log(parameters.transition[i][j]) for i in range(k)]))
            for j in range(k)
        ]
    return np.array(found)


def make(config: RegimeConfig, observed: NDArray[np.float64]) -> RegimeModel:
    return fit({"A": observed}, config, MINUTES)


def save(path: Path, model: RegimeModel, config: RegimeConfig, observed: NDArray[np.float64]) -> RegimeOrigin:
    return write(path, model, config, {"A": observed}, data_fingerprint="0" * 64, span_ns=(1, 2))


# Parity


@pytest.mark.parametrize("kind", KINDS)
def test_the_servers_filter_on_the_file_is_hmmlearn_given_each_window_and_those_before(
    kind: str, tmp_path: Path
) -> None:
    config = KINDS[kind]
    observed = observations(config)
    model = make(config, observed)
    save(tmp_path / "hmm.json", model, config, observed)
    found = filtered(load(tmp_path / "hmm.json"), observed)
    scaled = (observed - model.shift) / model.scale
    expected = [model.source.predict_proba(scaled[:end])[-1] for end in range(1, len(observed) + 1)]
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_slow_forward_recursion_in_logarithms_with_windows_missing(kind: str, tmp_path: Path) -> None:
    config = KINDS[kind]
    observed = observations(config, seed=2)
    observed[[0, 17, 40, 41, 42, 43]] = np.nan
    observed[60, -1] = np.nan
    model = make(config, observed)
    save(tmp_path / "hmm.json", model, config, observed)
    parameters = load(tmp_path / "hmm.json")
    unseen = np.concatenate((observed, observations(config, seed=3), [[9.0] * len(config.features)]))
    np.testing.assert_allclose(filtered(parameters, unseen), slow_forward(parameters, unseen), rtol=0.0, atol=1e-9)


def test_what_is_filtered_is_neither_smoothed_nor_viterbis() -> None:
    """Or these tests could not tell them apart."""
    config = KINDS["full-3-2"]
    observed = observations(config)
    model = make(config, observed)
    scaled, found = (observed - model.shift) / model.scale, filtered(model.parameters, observed)
    assert np.abs(found - model.source.predict_proba(scaled)).max() > 0.1
    assert (found.argmax(axis=1) != model.source.predict(scaled)).any()


@pytest.mark.parametrize("field", ["means", "transition", "covariances", "start"])
def test_parameters_that_are_not_the_models_are_not_written(field: str, tmp_path: Path) -> None:
    config = TWO
    observed = observations(config)
    model = make(config, observed)
    values = np.array(getattr(model.parameters, field))
    other = values[::-1] if field in {"transition", "start"} else values * 1.001
    changed = replace(model, parameters=model.parameters.model_copy(update={field: other.tolist()}))
    with pytest.raises(
        ParityBroken, match=r"the export gives .* a filtered probability must be within 1e-09"
    ) as caught:
        save(tmp_path / "hmm.json", changed, config, observed)
    assert abs(caught.value.exported - caught.value.reference) > 1e-9
    assert list(tmp_path.iterdir()) == []


def test_parity_is_looked_at_to_the_end_of_each_sequence_however_long() -> None:
    config = TWO
    observed = observations(config, windows=300)
    observed[150] = np.nan
    difference, compared = check_parity(make(config, observed), {"A": observed})
    assert difference < 1e-9
    assert compared == 2 * 64


# The file


def test_a_file_is_numbers_and_names_and_its_origin_says_where_they_come_from(tmp_path: Path) -> None:
    config = KINDS["full-3-2"]
    observed = observations(config)
    observed[5] = np.nan
    path = tmp_path / "models" / "hmm.json"  # the folder is made
    model = make(config, observed)
    said = save(path, model, config, observed)
    assert load(path) == model.parameters
    assert set(json.loads(path.read_text())) == set(HiddenMarkovParameters.model_fields)
    origin = RegimeOrigin.model_validate_json(origin_path(path).read_text())
    assert origin == said
    assert origin.parameters_sha256 == sha256(path.read_bytes()).hexdigest()
    assert (origin.windows, origin.windows_missing, origin.sequences) == (149, 1, 2)
    assert origin.config == config
    assert origin.parity_difference < 1e-9
    assert {"python", "hmmlearn", "numpy", "tickgate"} <= set(origin.libraries)
    assert sorted(one.name for one in path.parent.iterdir()) == ["hmm.json", "hmm.origin.json"]


def test_writing_again_replaces_both_and_the_same_model_is_the_same_bytes(tmp_path: Path) -> None:
    config = TWO
    path = tmp_path / "hmm.json"
    contents = []
    for seed in (1, 1, 2):
        observed = observations(config, seed)
        save(path, make(config, observed), config, observed)
        contents.append(path.read_bytes())
        origin = RegimeOrigin.model_validate_json(origin_path(path).read_text())
        assert origin.parameters_sha256 == sha256(contents[-1]).hexdigest()
    assert contents[0] == contents[1] != contents[2]


# At the server


def test_appended_bars_change_no_regime_that_was(tmp_path: Path) -> None:
    config = RegimeConfig(states=2, restarts=2)
    observed = observe_windows(read_bars("sp500:2004-2010"), DAILY, config.features)
    path = tmp_path / "hmm.json"
    write(path, fit(observed, config, DAILY), config, observed, data_fingerprint="", span_ns=(1, 2))
    settings = DAILY.model_copy(update={"hmm_file": path, "regime_source": "hmm"})

    def regimes(frame: pl.DataFrame) -> list[tuple[Regime, float]]:
        """In force after each bar, and how probable."""
        bars, estimates = Bars(settings.bar_s, settings.carry_age_s), RiskEstimates(settings)
        symbols = np.array([symbol.encode() for symbol in frame["symbol"]])
        found = []
        for bar in bars.add(symbols, table.values(frame, "exchange_ts_ns"), table.values(frame, "price")):
            estimates.update(bar, bars.symbols)
            state = estimates.regimes["SPX"]
            assert state._filter is not None
            found.append((state.regime, float(state._filter.probabilities[1])))
        return found

    frame = read_bars("sp500:2004-2010")
    whole = regimes(frame)
    assert {regime for regime, _ in whole} == {Regime.UNKNOWN, Regime.NORMAL, Regime.HIGH_VOLATILITY}
    for end in (500, 1200, 1203):
        alone = regimes(frame[:end])
        assert len(alone) == end - 1  # the newest bar is open
        assert alone == whole[: end - 1]


def test_an_observer_reads_the_file_and_writes_the_regimes_that_it_gives(tmp_path: Path) -> None:
    """A calm market and a wild one; the rules would know neither after so few windows."""
    market = planted([5e-4, 2e-3], [0.0, 0.0], windows=200).frame
    config = RegimeConfig(states=2, restarts=2)
    observed = observe_windows(market, MINUTES, config.features)
    path = tmp_path / "hmm.json"
    write(path, fit(observed, config, MINUTES), config, observed, data_fingerprint="", span_ns=(1, 2))
    rng = np.random.default_rng(7)
    prices = 100.0 * np.exp(rng.normal(0.0, [5e-4, 2e-3], (61, 2)).cumsum(axis=0))
    folder = tmp_path / "journal"
    folder.mkdir()
    with JournalWriter(folder) as writer:
        for number, row in enumerate(prices):
            for symbol, price in zip("AB", row.tolist(), strict=True):
                stamp_ns = START_NS + number * 60_000_000_000 + 10_000_000_000
                request = tick(0, symbol=symbol, price=price, exchange_ts_ns=stamp_ns)
                writer.append_decision(request, approved(), applied=True)
    settings = RiskValueSettings(window_bars=10, hmm_file=path, regime_source="hmm", bars_minimum=3).model_dump_json(
        exclude_defaults=True
    )
    arguments = ["observe", "--journal", str(folder), "--metrics-listen", "", "--risk-settings", settings]
    with subprocess.Popen([TICKGATE, *arguments], stderr=subprocess.PIPE, text=True) as observer:
        assert observer.stderr is not None
        said = []
        for line in observer.stderr:
            said.append(line)
            if '"observing"' in line:
                break
        assert '"observing"' in said[-1], said
        reader = ControlBlockReader(folder / CONTROL_FILE)
        while math.isnan(reader.read(Slot.RISK_DATA)[0]):
            assert observer.poll() is None
        observer.terminate()
        assert observer.wait(30) == 0
    found = risk_data.read(folder / risk_data.FILE_NAME)
    assert found.symbols == ("A", "B")
    assert found.regimes.tolist() == [Regime.NORMAL, Regime.HIGH_VOLATILITY]


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(train_regimes, [str(DAILY_CONFIG), *arguments], catch_exceptions=False)


def test_the_command_fits_real_data_shows_the_states_and_writes_what_the_server_loads(tmp_path: Path) -> None:
    path = tmp_path / "hmm.json"
    said = run("--output", str(path), "--states", "2", "--restarts", "2")
    assert said.exit_code == 0
    assert "SPX: 1,006 windows of 5 bars of 86400 s" in said.output
    for text in ("high_volatility", "normal", "expected dwell", "share of", "Wrote"):
        assert text in said.output
    settings = DAILY.model_copy(update={"hmm_file": path, "regime_source": "strictest"})
    assert settings.hidden_markov() == load(path)
    origin = RegimeOrigin.model_validate_json(origin_path(path).read_text())
    frame = read_bars("sp500")
    assert origin.data_fingerprint == table.fingerprint(frame)
    assert (origin.first_ts_ns, origin.last_ts_ns) == (frame["exchange_ts_ns"][0], frame["exchange_ts_ns"][-1])
    assert origin.symbols == ("SPX",)


def test_options_say_bars_windows_features_names_and_data(tmp_path: Path) -> None:
    path = tmp_path / "hmm.json"
    options = {
        "--output": str(path),
        "--data": "nasdaq:2000-2009",
        "--states": "2",
        "--regimes": "normal, risk_off",
        "--features": "log_realised_volatility",
        "--covariance": "diag",
        "--restarts": "2",
        "--bar-s": str(2 * 86_400),
        "--window-bars": "4",
    }
    said = run(*(word for option in options.items() for word in option))
    assert said.exit_code == 0
    assert "not observed" in said.output
    found = load(path)
    assert (found.bar_s, found.window_bars) == (172_800.0, 4)
    assert (found.features, found.regimes) == (("log_realised_volatility",), ("normal", "risk_off"))
    assert found.covariance_type == "diag"


def test_without_a_number_of_states_the_criterion_of_each_is_shown_and_the_file_is_in_the_repository(
    tmp_path: Path,
) -> None:
    config = tmp_path / "run.toml"
    config.write_text(
        f'[data]\nkind = "daily"\nsource = "sp500:2005-2008"\n[package]\nname = "m"\nrepository = "{tmp_path}"\n'
        '[[learners]]\nkind = "logistic"\n'
    )
    said = CliRunner().invoke(train_regimes, [str(config), "--restarts", "2"], catch_exceptions=False)
    assert said.exit_code == 0
    assert "BIC by states: 1: " in said.output
    assert said.output.count("(chosen)") == 1
    assert load(tmp_path / FILE_NAME).bar_s == 86_400.0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--features", "volume"), "options: features.0: Input should be"),
        (("--states", "3", "--regimes", "normal"), "1 names need as many states"),
        (("--window-bars", "1"), "options: window_bars: Input should be greater than or equal to 2"),
        (("--bar-s", "nan"), "options: bar_s"),
        (("--data", "dax"), "dax: no data set"),
        (("--data", "sp500:2018"), "50 rows, at least 60 needed"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_and_nothing_is_written(
    tmp_path: Path, arguments: tuple[str, ...], why: str
) -> None:
    said = run("--output", str(tmp_path / "hmm.json"), "--states", "2", *arguments)
    assert said.exit_code == 1
    assert said.output.startswith("Error: ")
    assert why in said.output
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_said_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file, no folder")
    said = run("--output", str(tmp_path / "models" / "hmm.json"), "--states", "1", "--restarts", "1")
    assert said.exit_code == 1
    assert str(tmp_path / "models") in said.output
    assert "Traceback" not in said.output
