"""A strict reader of the Prometheus text format (0.0.4): what a lenient scraper forgives, fails."""

import re

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("", "_sum", "_count")}

Series = tuple[str, str]  # name and labels, as written


def parse(text: str) -> dict[Series, float]:
    """Every series and its value; AssertionError names the line that breaks a rule."""
    assert text.endswith("\n"), "the last line must end too"
    samples: dict[Series, float] = {}
    families: dict[str, str] = {}  # name to type
    family, help_of = None, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            help_of, _, words = line.removeprefix("# HELP ").partition(" ")
            assert words.strip(), f"no help: {line}"
            assert help_of not in families, f"a family must stand together: {line}"
        elif line.startswith("# TYPE "):
            family, _, kind = line.removeprefix("# TYPE ").partition(" ")
            assert help_of == family, f"HELP must stand before TYPE: {line}"
            assert family not in families, f"a second TYPE: {line}"
            assert re.fullmatch(NAME, family) and family.startswith("throng_"), line
            assert kind in ("counter", "gauge", "histogram", "summary"), line
            assert family.endswith("_total") == (kind == "counter"), f"_total and counters: {line}"
            families[family] = kind
        else:
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            name, labels, value = match[1], match[2] or "", match[3]
            assert family, f"a sample before its TYPE: {line}"
            suffixes = SUFFIXES.get(families[family], ("",))
            assert name in [family + suffix for suffix in suffixes], f"outside its family: {line}"
            assert (name, labels) not in samples, f"the same series twice: {line}"
            samples[name, labels] = float(value)
            assert families[family] != "counter" or samples[name, labels] >= 0, line
    for name in families:
        assert any(series.startswith(name) for series, _ in samples), f"{name} has no sample"
    return samples


def total(samples: dict[Series, float], name: str) -> float:
    """The sum over all labels."""
    values = [value for (series, _), value in samples.items() if series == name]
    assert values, f"{name} is missing"
    return sum(values)
