# SPDX-License-Identifier: Apache-2.0
"""Intervals, tests and ranks against scipy, against hand-made cases, and against simulations with a known answer."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lipsync_bench.metrics.registry import COLUMNS
from lipsync_bench.results import statistics
from lipsync_bench.results.ranks import intervals, paired_tests, ranks
from lipsync_bench.results.rows import ENTRY, FIELDS
from lipsync_bench.results.statistics import Units, bootstrap_intervals, holm, paired_test, unit_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def estimate(values, speakers=None, seed=0):
    return bootstrap_intervals({"x": np.asarray(values, dtype=float)}, speakers, seed)["x"]


def table(methods: dict[str, dict[str, np.ndarray]], speakers=None, protocol="p-v1") -> pd.DataFrame:
    """Rows of some methods, each with columns over the same clips."""
    rows = []
    for method, columns in methods.items():
        for k in range(len(next(iter(columns.values())))):
            base = {"protocol": protocol, "method": method, "generator_sha256": "", "paste": "", "status": "ok"}
            clip = {
                "clip": f"c{k:05d}",
                "audio_clip": f"c{k:05d}",
                "speaker": None if speakers is None else speakers[k],
            }
            rows.append({**base, **clip, **{name: values[k] for name, values in columns.items()}})
    return pd.DataFrame(rows).reindex(columns=list(FIELDS))


# Intervals


def test_many_clips_have_the_interval_of_scipys_bootstrap():
    values = rng().gamma(2, 3, 300)
    ours = estimate(values)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=rng(1)).confidence_interval
    length = theirs.high - theirs.low
    # Two samples of 9999 means differ by about 1% of the length; the expansion for 300 clips is 0.6%.
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * length)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * length)
    assert ours.mean == pytest.approx(values.mean())
    assert (ours.n, ours.unit, ours.units) == (300, "clips", 300)


def test_speakers_are_resampled_as_scipys_bootstrap_does_with_their_sums_and_counts():
    sizes = rng(2).integers(1, 9, 120)
    codes = np.repeat(np.arange(120), sizes)
    values = rng(3).normal(0, 2, 120)[codes] + rng(4).normal(0, 1, len(codes))
    ours = estimate(values, [f"s{code}" for code in codes])
    theirs = stats.bootstrap(
        (np.bincount(codes, values), sizes),
        lambda sums, counts, axis: sums.sum(axis=axis) / counts.sum(axis=axis),
        paired=True,
        n_resamples=9999,
        method="percentile",
        rng=rng(1),
    ).confidence_interval
    length = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * length)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * length)
    assert (ours.unit, ours.units, ours.n) == ("speakers", 120, len(codes))
    over_clips = estimate(values)
    assert ours.high - ours.low > 1.5 * (over_clips.high - over_clips.low)


def test_few_clips_have_the_length_of_students_interval():
    """On average over normal samples; the plain percentile interval of eight clips is a fifth shorter."""
    half = []
    for seed in range(60):
        values = rng(seed).normal(0, 1, 8)
        found = estimate(values)
        student = stats.t.ppf(0.975, 7) * values.std(ddof=1) / math.sqrt(8)
        half.append((found.high - found.low) / 2 / student)
    assert np.mean(half) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize(("clips", "tolerance"), [(12, 0.045), (40, 0.035)])
def test_about_95_of_100_intervals_hold_the_true_mean(clips, tolerance):
    columns = {k: rng(100 + k).normal(3, 2, clips) for k in range(600)}
    found = bootstrap_intervals(columns)
    covered = np.mean([found[k].low <= 3 <= found[k].high for k in columns])
    assert covered == pytest.approx(0.95, abs=tolerance)  # standard error 0.009, and what the shared resamples add


def test_clips_of_few_speakers_need_resampling_by_speaker_to_cover_the_true_mean():
    speakers = [f"s{k // 6}" for k in range(120)]
    columns = {k: np.repeat(rng(k).normal(0, 1, 20), 6) + rng(1000 + k).normal(0, 0.3, 120) for k in range(400)}
    by_speaker, by_clip = bootstrap_intervals(columns, speakers), bootstrap_intervals(columns)

    def coverage(found):
        return np.mean([found[k].low <= 0 <= found[k].high for k in columns])

    assert coverage(by_speaker) == pytest.approx(0.95, abs=0.04)
    assert coverage(by_clip) < 0.75


def test_infinite_and_missing_values_stay_out_and_are_counted():
    found = estimate([math.inf, 30, 32, math.nan])
    assert (found.mean, found.n, found.units) == (31, 2, 2)
    assert 30 <= found.low <= found.high <= 32
    every = estimate([math.inf, math.inf, math.nan])
    assert (every.mean, every.n) == (math.inf, 2)
    assert math.isnan(every.low)
    nothing = estimate([math.nan, math.nan])
    assert (nothing.n, nothing.units) == (0, 0)
    assert math.isnan(nothing.mean)


def test_one_clip_has_no_interval_and_equal_ones_have_an_exact_one():
    assert math.isnan(estimate([1.0]).low)
    same = estimate([0.1, 0.1, 0.1])
    assert (same.low, same.high) == (0.1, 0.1)


def test_an_interval_follows_scale_and_shift_and_not_the_columns_beside_it():
    values = rng().normal(5, 2, 50)
    alone = estimate(values)
    moved = estimate(values * 1000 - 7)
    assert moved.low == pytest.approx(alone.low * 1000 - 7, rel=1e-10)
    assert moved.high == pytest.approx(alone.high * 1000 - 7, rel=1e-10)
    gaps = np.where(np.arange(50) < 9, math.nan, values)
    beside = bootstrap_intervals({"other": values[::-1], "gaps": gaps, "x": values})
    assert beside["x"].low == pytest.approx(alone.low, rel=1e-12)
    assert beside["gaps"].low == pytest.approx(estimate(gaps).low, rel=1e-12)
    assert estimate(values, seed=1).low != alone.low


def test_speakers_count_only_if_all_are_known_and_there_are_enough():
    assert unit_of([f"s{k}" for k in range(10)]) == "speakers"
    assert unit_of([f"s{k % 9}" for k in range(100)]) == "clips"
    assert unit_of([*(f"s{k}" for k in range(30)), None]) == "clips"
    assert unit_of([*(f"s{k}" for k in range(30)), math.nan]) == "clips"
    with pytest.raises(ValueError, match="2 speakers for 3 clips"):
        estimate([1, 2, 3], ["a", "b"])
    with pytest.raises(ValueError, match=r"columns of \[2, 3\] clips"):
        bootstrap_intervals({"a": np.zeros(2), "b": np.zeros(3)})


# Tests of pairs


def test_holm_by_hand():
    # Sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, and the last may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == pytest.approx([1, 1])
    with_gap = holm([0.02, math.nan, 0.03])
    assert with_gap[[0, 2]] == pytest.approx([0.04, 0.04])
    assert math.isnan(with_gap[1])
    assert len(holm([])) == 0


@pytest.mark.parametrize("clips", [5, 13, 40, 200])
def test_the_p_value_is_scipys(clips):
    a, b = rng(1).normal(0.3, 1, clips), rng(2).normal(0, 1, clips)
    assert paired_test(a, b).p == pytest.approx(stats.wilcoxon(a, b).pvalue, rel=1e-12)
    assert paired_test(a, b).p == paired_test(b, a).p
    assert paired_test(a, b).direction == -paired_test(b, a).direction


def test_few_clips_with_ties_are_tested_exactly_as_scipy_does():
    d = np.array([1, 1, 2, -1, 3, 3, 3, -2.0])
    assert paired_test(d, np.zeros(8)).p == pytest.approx(stats.wilcoxon(d).pvalue, rel=1e-12)


def test_five_clips_cannot_reach_a_twentieth_and_six_can():
    assert paired_test(np.arange(1.0, 6), np.zeros(5)).p == 2 / 2**5
    assert paired_test(np.arange(1.0, 7), np.zeros(6)).p == 2 / 2**6


def test_infinite_values_have_a_rank():
    identical, method = np.full(8, math.inf), np.linspace(20, 30, 8)
    found = paired_test(identical, method)
    assert (found.p, found.direction, found.n) == (2 / 2**8, 1, 8)
    same = paired_test(identical, identical)
    assert (same.p, same.direction, same.equal) == (1, 0, 8)
    both_sides = paired_test(np.array([math.inf, 1.0]), np.array([1.0, math.inf]))
    assert (both_sides.p, both_sides.direction) == (1, 0)


def test_missing_values_leave_the_pair_and_rounding_is_not_a_difference():
    a = np.array([1.0, math.nan, 3.0, 0.1 + 0.2])
    b = np.array([2.0, 5.0, math.nan, 0.3])
    found = paired_test(a, b)
    assert (found.n, found.equal, found.direction) == (2, 1, -1)
    nothing = paired_test(np.array([1.0, math.nan]), np.array([math.nan, 1.0]))
    assert (nothing.n, nothing.units) == (0, 0)
    assert math.isnan(nothing.p)
    with pytest.raises(ValueError, match="2 clips against 3"):
        paired_test(np.zeros(2), np.zeros(3))


def test_without_a_difference_one_test_in_twenty_is_wrong_and_a_real_one_is_found():
    wrong = np.mean([paired_test(rng(k).normal(0, 1, 30), np.zeros(30)).p < 0.05 for k in range(800)])
    assert 0.03 < wrong < 0.07
    found = np.mean([paired_test(rng(k).normal(0.6, 1, 30), np.zeros(30)).p < 0.05 for k in range(300)])
    power = stats.norm.sf(1.96 - 0.6 * math.sqrt(30 * 0.955))  # of the signed-rank test on normal data
    assert found == pytest.approx(power, abs=0.06)


def test_clips_of_one_speaker_do_not_count_as_independent():
    speakers = [f"s{k // 10}" for k in range(200)]
    by_clip, by_speaker = [], []
    for k in range(300):
        d = np.repeat(rng(k).normal(0, 1, 20), 10) + rng(5000 + k).normal(0, 0.5, 200)
        by_clip.append(paired_test(d, np.zeros(200)).p < 0.05)
        by_speaker.append(paired_test(d, np.zeros(200), speakers).p < 0.05)
    assert np.mean(by_clip) > 0.3
    assert 0.02 < np.mean(by_speaker) < 0.085


def test_a_speakers_difference_is_its_clips_mean():
    speakers = [f"s{k // 3:02d}" for k in range(36)]
    a, b = rng(1).normal(0.5, 1, 36), rng(2).normal(0, 1, 36)
    found = paired_test(a, b, speakers)
    expected = stats.wilcoxon((a - b).reshape(12, 3).mean(axis=1)).pvalue
    assert found.p == pytest.approx(expected, rel=1e-12)
    assert (found.unit, found.units, found.n) == ("speakers", 12, 36)
    a[:3], b[4] = math.inf, math.inf
    infinite = [math.inf, -math.inf, *(a - b)[6:].reshape(10, 3).mean(axis=1)]
    assert paired_test(a, b, speakers).p == pytest.approx(stats.wilcoxon(infinite).pvalue, rel=1e-12)


# Rows to tables


def three_methods(clips: int = 60, seed: int = 0) -> pd.DataFrame:
    """`good` far above `even` and `same`, which no data can separate; `lmd` is the other way round."""
    noise, hard = rng(seed), rng(seed + 1).normal(0, 3, clips)
    psnr = {
        "good": 30 + hard + noise.normal(0, 0.5, clips),
        "even": 28 + hard + noise.normal(0, 0.5, clips),
        "same": 28 + hard + noise.normal(0, 0.5, clips),
    }
    return table({name: {"psnr": values, "lmd": 40 - values} for name, values in psnr.items()})


def test_separated_methods_have_ranks_and_the_others_share_one():
    tests = paired_tests(three_methods())
    result = ranks(tests).set_index(["metric", "method"])
    for metric in ("psnr", "lmd"):
        found = {name: result.loc[(metric, name)] for name in ("good", "even", "same")}
        assert [found[name]["rank"] for name in found] == [1, 2, 2], metric
        assert [found[name]["group"] for name in found] == ["a", "b", "b"], metric
        assert [found[name]["beats"] for name in found] == [2, 0, 0], metric
    one = tests[(tests["metric"] == "psnr") & (tests["a_method"] == "even") & (tests["b_method"] == "good")].iloc[0]
    assert one["better"] == "b"
    assert one["low"] < one["difference"] < one["high"] < 0
    assert one["difference"] == pytest.approx(-2, abs=0.3)


def test_the_correction_is_within_a_metric():
    tests = paired_tests(three_methods())
    for _, group in tests.groupby("metric"):
        assert group["p_holm"].to_numpy() == pytest.approx(holm(group["p"].to_numpy()))


def test_the_order_of_rows_does_not_matter():
    rows = three_methods(40)
    tests = paired_tests(rows)
    mixed = rows.sample(frac=1, random_state=3, ignore_index=True)
    pd.testing.assert_frame_equal(intervals(rows), intervals(mixed))
    pd.testing.assert_frame_equal(tests, paired_tests(mixed))
    pd.testing.assert_frame_equal(ranks(tests), ranks(tests.sample(frac=1, random_state=5)))


def test_scaling_a_metric_changes_no_p_value_and_no_rank():
    rows = three_methods(40)
    scaled = rows.assign(psnr=rows["psnr"] * 1e4, lmd=rows["lmd"] * 1e-4)
    one, other = paired_tests(rows), paired_tests(scaled)
    assert other["p"].to_numpy() == pytest.approx(one["p"].to_numpy(), rel=1e-12)
    pd.testing.assert_frame_equal(ranks(one), ranks(other))


def test_the_ground_truth_is_not_ranked_unless_asked_and_offsets_have_no_rank():
    rows = table(
        {
            "ground_truth": {"psnr": np.full(20, math.inf), "expert_offset_frames": np.zeros(20)},
            "a": {"psnr": rng(1).normal(30, 1, 20), "expert_offset_frames": np.ones(20)},
            "b": {"psnr": rng(2).normal(25, 1, 20), "expert_offset_frames": np.ones(20)},
        }
    )
    tests = paired_tests(rows)
    assert set(tests["metric"]) == {"psnr"}
    assert len(tests) == 1
    result = ranks(paired_tests(rows, leave_out=())).set_index("method")
    assert result.loc[["ground_truth", "a", "b"], "rank"].tolist() == [1, 2, 3]
    assert math.isnan(paired_tests(rows, leave_out=()).iloc[1]["difference"])  # infinite against finite


def test_a_failed_clip_leaves_the_pair_and_a_method_without_common_clips_has_no_rank():
    rows = three_methods(20)
    failed = (rows["method"] == "good") & (rows["clip"] < "c00005")
    rows.loc[failed, "status"] = "failed"
    other = table({"elsewhere": {"psnr": np.full(20, 99.0)}}).assign(clip=[f"d{k}" for k in range(20)])
    tests = paired_tests(pd.concat([rows, other], ignore_index=True))
    psnr = tests[tests["metric"] == "psnr"].set_index(["a_method", "b_method"])
    assert psnr.loc[("even", "good"), "n"] == 15
    assert psnr.loc[("even", "same"), "n"] == 20
    assert psnr.loc[("elsewhere", "good"), "n"] == 0
    assert math.isnan(psnr.loc[("elsewhere", "good"), "p_holm"])
    assert set(ranks(tests)["method"]) == {"good", "even", "same"}
    found = intervals(rows).set_index(["method", "metric"])
    assert found.loc[("good", "psnr"), "n"] == 15


def pair(a: str, b: str, better: str) -> dict[str, object]:
    names = {"a_method": a, "b_method": b, **{f"{s}_{k}": "" for s in "ab" for k in ENTRY[2:]}}
    return {"protocol": "p-v1", "metric": "psnr", "n": 9, "better": better, **names}


def test_a_chain_shares_a_rank_and_letters_show_which_entry_beats_which():
    tests = pd.DataFrame([pair("a", "b", ""), pair("b", "c", ""), pair("a", "c", "a"), pair("d", "a", "b")])
    tests = pd.concat([tests, pd.DataFrame([pair("d", "b", "b"), pair("d", "c", "b")])])
    result = ranks(tests).set_index("method")
    assert result["rank"].to_dict() == {"a": 1, "b": 1, "c": 1, "d": 4}
    assert result["group"].to_dict() == {"a": "a", "b": "ab", "c": "b", "d": "c"}
    assert result["beaten_by"].to_dict() == {"a": 0, "b": 0, "c": 1, "d": 3}


def test_methods_that_beat_each_other_in_a_circle_share_a_rank():
    tests = pd.DataFrame([pair("a", "b", "a"), pair("b", "c", "a"), pair("c", "a", "a"), pair("z", "a", "a")])
    tests = pd.concat([tests, pd.DataFrame([pair("z", "b", "a"), pair("z", "c", "a")])])
    for seed in range(5):
        result = ranks(tests.sample(frac=1, random_state=seed)).set_index("method")
        assert result["rank"].to_dict() == {"z": 1, "a": 2, "b": 2, "c": 2}
        assert result["group"].nunique() == 4


def test_exactly_the_entries_not_separated_share_a_letter():
    generator = rng(8)
    for entries in (2, 5, 9):
        tests = [
            pair(f"m{i:02d}", f"m{j:02d}", generator.choice(["", "a", "b"]))
            for i in range(entries)
            for j in range(i + 1, entries)
        ]
        result = ranks(pd.DataFrame(tests)).set_index("method")
        for test in tests:
            a, b = result.loc[test["a_method"]], result.loc[test["b_method"]]
            assert bool(set(a["group"]) & set(b["group"])) == (test["better"] == "")
            if test["better"] == "":
                assert a["rank"] == b["rank"]
        assert result["rank"].min() == 1


def test_two_dozen_methods_that_nothing_separates_are_one_group():
    tests = [pair(f"m{i:02d}", f"m{j:02d}", "") for i in range(24) for j in range(i + 1, 24)]
    result = ranks(pd.DataFrame(tests))
    assert set(result["rank"]) == {1}
    assert set(result["group"]) == {"a"}


def test_a_rank_sum_against_the_mean_separates_nothing():
    """Most clips a little better, a few much worse: the signed ranks and the means point to different sides."""
    a = np.r_[np.full(40, 0.1) + rng().random(40) / 100, np.full(4, -50.0)]
    test = paired_tests(table({"a": {"psnr": 30 + a}, "b": {"psnr": np.full(44, 30.0)}})).iloc[0]
    assert test["p_holm"] < 0.05
    assert test["direction"] == 1
    assert test["difference"] < 0
    assert test["better"] == ""


def test_protocols_are_never_compared_with_each_other():
    values = {"psnr": rng().normal(30, 1, 20)}
    rows = pd.concat([table({"a": values, "b": values}), table({"c": values, "d": values}, protocol="q-v1")])
    tests = paired_tests(rows.reset_index(drop=True))
    assert tests[["protocol", "a_method", "b_method"]].to_numpy().tolist() == [["p-v1", "a", "b"], ["q-v1", "c", "d"]]
    assert (tests["p"] == 1).all()


def test_one_method_alone_has_intervals_and_no_tests():
    rows = table({"a": {"psnr": rng().normal(30, 1, 20)}}, speakers=[f"s{k}" for k in range(20)])
    tests = paired_tests(rows)
    assert len(tests) == len(ranks(tests)) == 0
    assert {"better", "p_holm"} <= set(tests.columns)
    assert intervals(rows)["unit"].tolist() == ["speakers"]


def test_a_row_that_occurs_twice_is_refused():
    rows = three_methods(5)
    with pytest.raises(ValueError, match=r"1 rows occur twice.*bench leaderboard merge"):
        intervals(pd.concat([rows, rows.iloc[:1]], ignore_index=True))


def test_rows_are_pairs_of_video_and_audio():
    """In an unpaired protocol a video may occur twice, with two audio clips; the ground truth only with its own."""
    rows = three_methods(24)
    audio_clips = [f"c{(k + 1) % 24:05d}" for k in range(24)] * 3
    unpaired = rows.assign(clip=[f"c{k // 2:05d}" for k in range(24)] * 3, audio_clip=audio_clips)
    ground_truth = table({"ground_truth": {"psnr": np.linspace(30, 40, 12)}})
    both = pd.concat([unpaired, ground_truth], ignore_index=True)
    found = intervals(both).set_index(["method", "metric"])
    assert found.loc[("good", "psnr"), ["n", "units"]].tolist() == [24, 24]
    assert found.loc[("ground_truth", "psnr"), ["n", "units", "mean"]].tolist() == [12, 12, 35]
    alone = intervals(ground_truth).set_index(["method", "metric"])
    assert found.loc[("ground_truth", "psnr"), "low"] == pytest.approx(alone.loc[("ground_truth", "psnr"), "low"])
    pd.testing.assert_frame_equal(ranks(paired_tests(both)), ranks(paired_tests(rows)))
    other_audio = unpaired["method"].eq("good")
    moved = unpaired.assign(
        audio_clip=unpaired["audio_clip"].where(~other_audio, "elsewhere/" + unpaired["audio_clip"])
    )
    assert set(ranks(paired_tests(moved))["method"]) == {"even", "same"}
    with pytest.raises(ValueError, match="1 rows occur twice"):
        intervals(pd.concat([unpaired, unpaired.iloc[:1]], ignore_index=True))


def test_ranks_need_no_intervals_of_the_differences():
    rows = three_methods(40)
    whole, quick = paired_tests(rows), paired_tests(rows, ends=False)
    assert quick[["low", "high"]].isna().all(axis=None)
    pd.testing.assert_frame_equal(quick.drop(columns=["low", "high"]), whole.drop(columns=["low", "high"]))
    pd.testing.assert_frame_equal(ranks(quick), ranks(whole))


def test_units_are_made_once_for_many_columns():
    speakers = [f"s{k // 4}" for k in range(48)]
    units = Units.of(speakers, 48)
    a, b = rng(1).normal(0, 1, 48), rng(2).normal(0, 1, 48)
    assert paired_test(a, b, units) == paired_test(a, b, speakers)
    assert bootstrap_intervals({"x": a}, units) == bootstrap_intervals({"x": a}, speakers)
    assert Units.of(units, 48) is units
    with pytest.raises(ValueError, match="48 speakers for 47 clips"):
        paired_test(a[:47], b[:47], units)


def test_an_unknown_speaker_is_one_whether_empty_or_missing():
    rows = three_methods(40).assign(speaker=[f"s{k}" for k in range(40)] * 3)
    assert set(intervals(rows)["unit"]) == {"speakers"}
    for unknown in ("", None):
        gap = rows.assign(speaker=rows["speaker"].where(rows["speaker"] != "s7", unknown))
        assert set(intervals(gap)["unit"]) == {"clips"}
        one = rows.assign(speaker=rows["speaker"].where(rows.index != 7, unknown))  # the other rows have it
        assert set(intervals(one)["unit"]) == {"speakers"}


def test_all_columns_of_a_split_share_one_matrix_of_resamples(monkeypatch):
    """What makes five methods, fourteen metrics and 1200 clips a matter of a second: one draw for all of them."""
    drawn = []

    class Counting:
        def __init__(self, seed):
            self.generator = np.random.Generator(np.random.PCG64(seed))

        def integers(self, units, size):
            drawn.append(size[0])
            return self.generator.integers(units, size=size)

    monkeypatch.setattr(statistics.np.random, "default_rng", Counting)
    columns = {(m, c.name): np.arange(50.0) * (m + 1) for m in range(5) for c in COLUMNS}
    assert len(bootstrap_intervals(columns)) == 5 * len(COLUMNS)
    assert sum(drawn) == statistics.RESAMPLES
