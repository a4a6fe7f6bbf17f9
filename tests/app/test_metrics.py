from falcon_mamba_app.metrics import ReplyMeter, RollingRate


def test_a_rolling_rate_counts_only_its_window():
    rate = RollingRate(window_s=2.0)
    rate.add(10, now_s=0.0)
    rate.add(6, now_s=1.5)
    assert rate.per_s(now_s=1.9) == 8.0
    assert rate.per_s(now_s=2.0) == 3.0
    assert rate.per_s(now_s=9.0) == 0.0


def test_the_first_reading_is_the_time_to_first_token():
    meter = ReplyMeter(started_s=10.0)
    assert meter.ttft_s is None
    meter.add(1, now_s=10.25)
    meter.add(2, now_s=10.5)
    assert meter.ttft_s == 0.25


def test_one_reading_makes_no_speed():
    meter = ReplyMeter(started_s=0.0)
    meter.add(1, now_s=1.0)
    assert meter.tokens_per_s is None
    assert meter.tokens_per_s_now is None


def test_the_speed_now_forgets_the_slow_beginning():
    meter = ReplyMeter(started_s=0.0, window_s=1.0)
    for tokens, now_s in ((1, 1.0), (2, 11.0), (52, 12.0), (102, 13.0)):
        meter.add(tokens, now_s=now_s)
    assert meter.tokens_per_s_now == 50.0
    assert meter.tokens_per_s == 101 / 12
