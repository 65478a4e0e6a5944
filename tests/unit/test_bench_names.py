"""What the benchmark of names reads of dnsperf; the measuring itself is tried by running it."""

import pytest

from benchmark.resolver_load import Load, read

PRINTED = """DNS Performance Testing Tool
Version 2.10.0

[Status] Command line: dnsperf -s 127.0.0.53 -p 5353 -d questions -l 5
[Status] Sending queries (to 127.0.0.53:5353)
[Status] Stopping after 5.000000 seconds
[Status] Testing complete (time limit)

Statistics:

  Queries sent:         50000
  Queries completed:    40000 (80.00%)
  Queries lost:         10000 (20.00%)

  Response codes:       {codes}
  Average packet size:  request 36, response 52
  Run time (s):         5.001000
  Queries per second:   7998.400320

  Average Latency (s):  0.012500 (min 0.000166, max 0.250000)
  Latency StdDev (s):   0.001030

"""


@pytest.mark.parametrize(
    ("codes", "wrong"),
    [
        ("NOERROR 40000 (100.00%)", 0.0),
        ("NOERROR 30000 (75.00%), NXDOMAIN 10000 (25.00%)", 25.0),
        ("REFUSED 40000 (100.00%)", 100.0),
    ],
)
def test_what_dnsperf_prints_is_read(codes: str, wrong: float) -> None:
    told = read(PRINTED.format(codes=codes))
    assert told == Load(rate=7998.40032, lost=20.0, wrong=wrong, average=12.5, longest=250.0)


def test_anything_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no statistics: nothing was asked"):
        read("nothing was asked")
