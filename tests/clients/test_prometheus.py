"""The reader of metrics is strict: each rule is shown to fail on a small made-up text."""

import pytest

import prometheus

GAUGE = "# HELP throng_x Help.\n# TYPE throng_x gauge\n"
COUNTER = "# HELP throng_x_total Help.\n# TYPE throng_x_total counter\n"


def test_what_keeps_to_the_rules_is_read():
    text = GAUGE + 'throng_x{a="1",b="\\"\\n"} 2\nthrong_x 0.5\n' + COUNTER + "throng_x_total 3\n"
    samples = prometheus.parse(text)
    assert samples == {
        ("throng_x", 'a="1",b="\\"\\n"'): 2,
        ("throng_x", ""): 0.5,
        ("throng_x_total", ""): 3,
    }
    assert prometheus.total(samples, "throng_x") == 2.5


@pytest.mark.parametrize(
    "text, why",
    [
        (GAUGE + "throng_x 1", "last line"),
        ("throng_x 1\n", "before its TYPE"),
        ("# TYPE throng_x gauge\nthrong_x 1\n", "HELP must stand"),
        (GAUGE, "no sample"),
        (GAUGE + "throng_y 1\n", "outside its family"),
        (GAUGE + "throng_x 1\nthrong_x 1\n", "the same series twice"),
        (GAUGE + "throng_x{a=1} 1\n", "not a sample"),
        (GAUGE + "throng_x  1\n", "not a sample"),
        (GAUGE + "throng_x 1\n" + COUNTER + "throng_x_total 1\n" + GAUGE, "stand together"),
        (GAUGE.replace("gauge", "counter") + "throng_x 1\n", "_total and counters"),
        (COUNTER.replace("counter", "gauge") + "throng_x_total 1\n", "_total and counters"),
        (COUNTER + "throng_x_total -1\n", "throng_x_total -1"),
    ],
)
def test_what_breaks_a_rule_is_refused(text, why):
    with pytest.raises(AssertionError, match=why):
        prometheus.parse(text)
